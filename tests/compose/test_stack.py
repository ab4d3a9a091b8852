"""docker-compose.yml as it runs: from nothing to a picture, grown, hurt, renewed, lost and restored.

In the order of the file: each leaves the stack as the next one expects it.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
import requests

from stack.demo import journey
from stack.demo.client import Client
from tests.compose.load import CREATE, PATHS, load, sign_in, until
from tests.compose.project import Project

ALL = (*PATHS, CREATE)


def administrator(project: Project) -> Client:
    client = Client(project.url, project.target.api_key)
    client.sign_in(project.target.username, project.target.password)
    return client


def test_compose_finds_nothing_wrong_with_the_file(project: Project) -> None:
    assert project.compose("config", "--quiet") == ""


def test_every_container_is_healthy(project: Project) -> None:
    told = {container["Name"]: container["Health"] for container in project.containers()}
    assert told and set(told.values()) == {"healthy"}, told


def test_only_the_gateway_and_s3_can_be_reached_from_outside(project: Project) -> None:
    published = {
        container["Service"]
        for container in project.containers()
        for port in container["Publishers"] or ()
        if port["PublishedPort"]
    }
    assert published == {"gateway", "s3"}


def test_stores_let_nobody_in_without_a_password(project: Project) -> None:
    redis = project.compose("exec", "-e", "REDISCLI_AUTH=", "redis", "redis-cli", "ping")
    assert "NOAUTH" in redis
    mongo = project.compose(
        *("exec", "mongo", "mongosh", "--quiet", "--norc", "--eval"),
        "try { db.getSiblingDB('sdfleet_users').users.findOne(); print(1) } catch (e) { print(e.codeName) }",
    )
    assert mongo.split()[-1] == "Unauthorized"
    anonymous = requests.get(f"{project.values['S3_PUBLIC_URL']}/sdfleet?list-type=2", timeout=60)
    assert anonymous.status_code == 403


def test_the_demonstration_makes_its_picture(project: Project, tmp_path: Path) -> None:
    target = project.target
    said = project.run(
        *(sys.executable, "-m", "stack", "demo", "--url", target.url, "--api-key", target.api_key),
        *("--password", target.password, "--pictures", str(tmp_path)),
    )
    result = json.loads(said.splitlines()[-1])
    assert Path(result["picture"]).read_bytes().startswith(b"\x89PNG")


def test_a_pickle_is_converted_without_network(project: Project, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "tiny-embedding.pt"
    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}}, file)
    client = administrator(project)
    wanted = {
        "checkpoint_type": "embeddings",
        "filenames": [{"filename": file.name, "parts_number": 1}],
        "params": {"message": "a pickle", "creator": "admin"},
    }
    made = client.call("POST", "/checkpoints", wanted)
    etag = journey.put(made["s3PresignUrl"][file.name][0], file.read_bytes())
    path = f"/checkpoints/{made['checkpoint']['id']}"
    tags = {file.name: [{"ETag": etag, "PartNumber": 1}]}
    client.call("PUT", path, {"status": "Active", "multi_parts_tags": tags})

    def told() -> dict:
        data = client.call("GET", path)
        return data.get("checkpoint", data)

    until(lambda: told()["status"] != "Initial" or "error" in told()["params"])
    assert (told()["status"], told()["name"]) == ("Active", ["tiny-embedding.safetensors"]), told()


def test_three_replicas_all_serve_and_a_killed_one_costs_only_what_it_had_in_hand(project: Project) -> None:
    project.compose("up", "--detach", "--wait", "--scale", "inference=3", "--scale", "gpu_worker=2")
    replicas = [container["Name"] for container in project.containers("inference")]
    assert len(replicas) == 3
    with load(project.target, ("inference",)) as outcomes:
        before = requests_answered(project, replicas)
        until(
            lambda: all(
                now > then for now, then in zip(requests_answered(project, replicas), before, strict=True)
            )
        )
        project.run("docker", "kill", replicas[0])
        killed_at = outcomes.total
        until(lambda: outcomes.total > killed_at + 500)
    print(json.dumps({"killed": replicas[0], **outcomes.counts}))
    assert not outcomes.failed, outcomes.counts  # they were all safe to repeat
    project.compose("up", "--detach", "--wait", "--scale", "inference=1", "--scale", "gpu_worker=1")


def requests_answered(project: Project, containers: list[str]) -> list[int]:
    """How many lines each container's log has about requests."""
    logs = [project.run("sh", "-c", f"docker logs {name} 2>&1") for name in containers]
    return [log.count("/inferences") for log in logs]


def test_a_rolling_restart_under_load_loses_no_request(project: Project) -> None:
    before = {container["ID"] for container in project.containers()}
    with load(project.target, ALL) as outcomes:
        project.run("sh", "deploy/rolling-restart.sh", *PATHS)
    print(json.dumps({"rolling restart": list(PATHS), **outcomes.counts}))
    renewed = {container["ID"] for service in PATHS for container in project.containers(service)}
    assert renewed and not renewed & before
    assert not outcomes.failed, outcomes.counts


@pytest.mark.parametrize("service", PATHS)
def test_after_a_plain_restart_a_service_answers_again(project: Project, service: str) -> None:
    """A restart in place of the only replica refuses requests for its seconds: how many is printed."""
    others = tuple(name for name in PATHS if name not in {service, "users"})
    with load(project.target, (service, *others)) as outcomes:
        project.compose("restart", service)
        until(lambda: requests.get(f"{project.url}{PATHS[service]}", headers=headers(project), timeout=60).ok)
    print(json.dumps({"restarted": service, **outcomes.counts}))
    lost = {failure.split()[0] for failure in outcomes.failed}
    assert service == "users" or lost <= {service}, outcomes.counts


def headers(project: Project) -> dict[str, str]:
    return {"x-api-key": project.target.api_key, "Authorization": f"Bearer {sign_in(project.target)}"}


def test_what_was_backed_up_is_there_again_after_everything_was_lost(
    project: Project, tmp_path: Path
) -> None:
    backup = tmp_path / "backup"
    before = everything(administrator(project))
    assert before["users"] and before["checkpoints"] and before["pictures"]
    project.run("sh", "deploy/backup.sh", str(backup))
    # A second one into the same folder copies what changed, and is whole in itself.
    first = json.loads(project.run("sh", "deploy/backup.sh", str(backup)).splitlines()[-1])
    assert first["objects"] and (backup.stat().st_mode & 0o077) == 0

    project.compose("down", "--volumes")
    restored = json.loads(project.run("sh", "deploy/restore.sh", str(backup)).splitlines()[-1])
    assert restored["objects"] == first["objects"]
    project.compose("up", "--detach", "--wait")

    assert everything(administrator(project)) == before
    artist = journey.create_artist(project.target)
    endpoint = journey.find_endpoint(artist)
    assert endpoint is not None
    journey.wait_in_service(artist, endpoint)
    parameters = {"prompt": "a red circle on a white background", "steps": 2, "width": 64, "height": 64}
    job = journey.start_job(artist, endpoint, "shapes-v1.safetensors", parameters)
    assert [state["status"] for state in journey.follow_job(artist, job)][-1] == "succeed"
    shutil.rmtree(backup)


def everything(client: Client) -> dict[str, object]:
    """Users, checkpoints, and the pictures of finished jobs, byte for byte."""
    jobs = client.call("GET", "/inferences")["inferences"]
    finished = sorted(job["InferenceJobId"] for job in jobs if job["status"] == "succeed")
    pictures = {
        job: [journey.get(url) for url in client.call("GET", f"/inferences/{job}")["img_presigned_urls"]]
        for job in finished
    }
    return {
        "users": sorted(user["username"] for user in client.call("GET", "/users")["users"]),
        "checkpoints": sorted(
            (name, one["status"])
            for one in client.call("GET", "/checkpoints")["checkpoints"]
            for name in one["name"]
        ),
        "pictures": pictures,
    }


def test_a_restore_overwrites_nothing(project: Project, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    project.run("sh", "deploy/backup.sh", str(backup))
    project.compose("--profile", "*", "stop")
    with pytest.raises(AssertionError, match="is not empty"):
        project.run("sh", "deploy/restore.sh", str(backup))
    project.compose("up", "--detach", "--wait")
