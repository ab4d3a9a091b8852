"""The contract's rows of checkpoints, through the gateway, with a real HTTP server as the import source."""

import os
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from services.common.s3 import ObjectStore
from services.common.settings import S3Settings
from stack.demo import journey
from stack.demo.client import Client, DemoFailed
from stack.secrets import load_or_make
from stack.settings import BUCKET, ROOT
from tests.checkpoints.conftest import PART, pickled, put_parts, safetensors, unique
from tests.checkpoints.source import Source, plain, running_source
from tests.running import CHECKPOINT, PARAMETERS, Running

ABSENT = str(uuid.uuid4())


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with running_source() as running_:
        yield running_


@pytest.fixture(scope="module")
def admin(running: Running) -> Client:
    client = Client(running.target.url, running.target.api_key)
    client.sign_in(running.target.username, running.target.password)
    return client


@pytest.fixture(scope="module")
def store(running: Running) -> ObjectStore:
    secrets = load_or_make(running.stack.folder)
    return ObjectStore(
        S3Settings(
            endpoint_url=running.stack.creds().s3_url,
            bucket=BUCKET,
            access_key=secrets.s3_access_key,
            secret_key=secrets.s3_secret_key,
        )
    )


def files(name: str, parts: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "checkpoint_type": "Lora",
        "filenames": [{"filename": name, "parts_number": parts}],
        "params": {"message": "a test"},
    } | more


def uploaded(client: Client, name: str, content: bytes | None = None) -> str:
    """The id of an Active checkpoint."""
    begun = client.call("POST", "/checkpoints", files(name))
    tags = put_parts(begun["s3PresignUrl"][name], [safetensors() if content is None else content])
    path = f"/checkpoints/{begun['checkpoint']['id']}"
    client.call("PUT", path, {"status": "Active", "multi_parts_tags": {name: tags}})
    return str(begun["checkpoint"]["id"])


def of(client: Client, checkpoint_id: str) -> dict[str, Any]:
    return dict(client.call("GET", f"/checkpoints/{checkpoint_id}")["checkpoint"])


def until(look: Callable[[], Any], seconds: float = 90) -> Any:
    """What is seen as soon as it is something."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)
    return seen


def imported(client: Client, url: str) -> dict[str, Any]:
    """The checkpoint once its import is over."""
    body = {"checkpoint_type": "Lora", "urls": [url], "params": {"message": "a test"}}
    checkpoint_id = client.call("POST", "/checkpoints", body)["checkpoint"]["id"]

    def over() -> dict[str, Any] | None:
        seen = of(client, checkpoint_id)
        return seen if seen["status"] == "Active" or "error" in seen["params"] else None

    return dict(until(over))


def test_an_upload_in_parts_becomes_active(running: Running, store: ObjectStore) -> None:
    name, content = unique(), safetensors(6 * 2**20)
    answer = running.ask("POST", "/checkpoints", files(name, parts=2), **running.signed_in())
    assert answer.status_code == 201
    begun = answer.json()["data"]["checkpoint"]
    assert uuid.UUID(begun["id"])
    assert (begun["type"], begun["status"]) == ("Lora", "Initial")
    key = f"Lora/checkpoint/custom/{begun['id']}/{name}"
    assert f"{begun['s3_location']}/{name}" == f"s3://{BUCKET}/{key}"
    assert begun["params"]["multipart_upload"][name]["key"] == key
    urls = answer.json()["data"]["s3PresignUrl"][name]
    path = f"/checkpoints/{begun['id']}"
    tags = put_parts(urls[:1], [content[:PART]])

    listed = running.artist.call("GET", f"{path}/uploads")["uploads"][0]
    assert [part["ETag"] for part in listed["parts"]] == [tags[0]["ETag"]]
    (missing,) = listed["missing"]
    (second,) = put_parts([missing["url"]], [content[PART:]])
    tags.append(second | {"PartNumber": missing["PartNumber"]})

    for wrong, sentence in (
        ({}, "multi parts tags is empty"),
        ({name: tags[:1]}, "part 2"),
        ({name: [tags[0], tags[1] | {"ETag": '"0"'}]}, "part 2"),
    ):
        body = {"status": "Active", "multi_parts_tags": wrong}
        refused = running.ask("PUT", path, body, **running.signed_in())
        assert refused.status_code == 400
        assert sentence in refused.json()["message"]
        assert of(running.artist, begun["id"])["status"] == "Initial"

    body = {"status": "Active", "multi_parts_tags": {name: tags[::-1]}}
    done = running.ask("PUT", path, body, **running.signed_in())
    assert done.status_code == 200
    assert done.json()["checkpoint"] == done.json()["data"]["checkpoint"]
    assert done.json()["checkpoint"]["status"] == "Active"
    assert store.read(key, 10**9) == content
    assert running.ask("PUT", path, body, **running.signed_in()).status_code == 200  # completing twice


def test_a_name_can_be_used_once(running: Running) -> None:
    name = unique()
    uploaded(running.artist, name)
    answer = running.ask("POST", "/checkpoints", files(name), **running.signed_in())
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        f"{name} already exists, please use another or rename/delete exists",
    )


@pytest.mark.parametrize("name", ["a/b.safetensors", "..", "a\0.safetensors", "x" * 300 + ".safetensors"])
def test_impossible_names_are_refused(running: Running, name: str) -> None:
    answer = running.ask("POST", "/checkpoints", files(name), **running.signed_in())
    assert answer.status_code == 400
    assert "file name" in answer.json()["message"]


def test_an_import_answers_at_once_and_becomes_active(
    running: Running, source: Source, store: ObjectStore
) -> None:
    content, name = safetensors(9 * 2**20), unique()
    body = {"checkpoint_type": "Lora", "urls": [source.add(content, name)], "params": {"message": "a"}}
    answer = running.ask("POST", "/checkpoints", body, **running.signed_in())
    assert (answer.status_code, answer.json()["message"]) == (
        202,
        "Checkpoint creation in progress, please check later",
    )
    begun = answer.json()["data"]["checkpoint"]
    assert begun["status"] == "Initial"
    until(lambda: of(running.artist, begun["id"])["status"] == "Active")
    assert of(running.artist, begun["id"])["name"] == [name]
    assert store.read(f"Lora/checkpoint/custom/{begun['id']}/{name}", 10**9) == content


def test_the_published_example_of_a_pth_is_converted(
    running: Running, source: Source, store: ObjectStore
) -> None:
    name = unique("model", ".pth")
    checkpoint = imported(running.artist, source.add(pickled((1.0, 2.0), "emb_params"), name))
    final = name.replace(".pth", ".safetensors")
    assert (checkpoint["status"], checkpoint["name"]) == ("Active", [final]), checkpoint["params"]
    assert checkpoint["params"]["architecture"] == "textual inversion"
    assert checkpoint["params"]["warning"] == f"{final} looks like embeddings (textual inversion), not Lora"
    folder = f"Lora/checkpoint/custom/{checkpoint['id']}/"
    assert list(store.keys_under(folder)) == [folder + final]


def test_failures_of_imports_are_visible_and_leave_nothing(
    running: Running, source: Source, store: ObjectStore
) -> None:
    inside = f"http://localhost:{source.server_port}/inside.safetensors"
    away = source.add(b"", how=lambda handler, _: handler.start(302, Location=inside, Content_Length=0))
    for url, sentence in (
        (f"http://{source.host}/nothing.safetensors", "it answers 404"),
        (source.add(b"PK\x03\x04" + bytes(1000)), "it is a zip archive"),
        (away, "localhost is not a public address"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254 is not a public address"),
    ):
        checkpoint = imported(running.artist, url)
        assert sentence in checkpoint["params"]["error"]
        assert list(store.keys_under(f"Lora/checkpoint/custom/{checkpoint['id']}/")) == []


def test_progress_is_shown_and_deleting_cancels(
    running: Running, admin: Client, source: Source, store: ObjectStore
) -> None:
    content = safetensors(24 * 2**20)

    def slow(handler: Any, content: bytes) -> None:
        if handler.headers.get("Range"):
            plain(handler, content)
            return
        handler.start(200, Content_Length=len(content))
        for start in range(0, len(content), 2**19):
            handler.wfile.write(content[start : start + 2**19])
            time.sleep(0.1)

    body = {"checkpoint_type": "Lora", "urls": [source.add(content, how=slow)], "params": {}}
    checkpoint_id = running.artist.call("POST", "/checkpoints", body)["checkpoint"]["id"]
    progress = until(lambda: of(running.artist, checkpoint_id)["params"].get("progress"))
    assert set(progress) == {"bytes", "total", "bytes_per_second", "remaining_seconds"}
    admin.call("DELETE", "/checkpoints", {"checkpoint_id_list": [checkpoint_id]})
    with pytest.raises(DemoFailed, match=f"404: checkpoint with id {checkpoint_id} not found"):
        of(running.artist, checkpoint_id)
    folder = f"Lora/checkpoint/custom/{checkpoint_id}/"

    def gone() -> bool:
        listed = store.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return not any(one["Key"].startswith(folder) for one in listed) and not [*store.keys_under(folder)]

    until(gone)


def test_a_checkpoint_is_disabled_enabled_renamed_and_edited(running: Running, store: ObjectStore) -> None:
    name, other = unique(), unique("renamed")
    checkpoint_id = uploaded(running.artist, name)
    path = f"/checkpoints/{checkpoint_id}"
    for status in ("Disabled", "Active"):
        assert running.artist.call("PUT", path, {"status": status})["checkpoint"]["status"] == status
    assert running.artist.call("PUT", path, {"name": other})["checkpoint"]["name"] == [other]
    changed = running.artist.call("PUT", path, {"checkpoint_type": "VAE", "params": {"message": "new"}})
    assert (changed["checkpoint"]["type"], changed["checkpoint"]["params"]["message"]) == ("VAE", "new")
    assert store.read(f"VAE/checkpoint/custom/{checkpoint_id}/{other}", 10**6) == safetensors()
    refused = running.ask("PUT", path, {"name": CHECKPOINT.name}, **running.signed_in())
    assert refused.status_code == 400
    assert "already exists" in refused.json()["message"]


def test_the_list_has_all_filters_and_pages(running: Running, admin: Client) -> None:
    mine, others = uploaded(running.artist, unique()), uploaded(admin, unique())

    def listed(client: Client, **query: Any) -> list[str]:
        return [one["id"] for one in client.call("GET", "/checkpoints", **query)["checkpoints"]]

    assert others not in listed(running.artist)  # it is the administrator's
    assert {mine, others} <= set(listed(admin))
    assert listed(admin)[:2] == [others, mine]  # newest first
    assert mine in listed(admin, username=journey.USER)
    assert others not in listed(admin, username=journey.USER)
    assert mine in listed(admin, roles=[journey.ROLE, "nobody"])
    assert mine not in listed(admin, types=["VAE", "ControlNet"])
    assert mine in listed(admin, types=["VAE", "Lora"], status=["Active", "Initial"])
    page = admin.call("GET", "/checkpoints", page=2, per_page=1)
    assert ([one["id"] for one in page["checkpoints"]], page["page"], page["per_page"]) == ([mine], 2, 1)
    assert page["pages"] == page["total"] >= 2
    first = admin.call("GET", "/checkpoints", limit=1)
    rest = admin.call("GET", "/checkpoints", limit=1, last_evaluated_key=first["last_evaluated_key"])
    assert [one["id"] for one in first["checkpoints"] + rest["checkpoints"]] == [others, mine]
    (shown,) = page["checkpoints"]
    wanted = {"id", "s3Location", "type", "status", "name", "created", "params", "allowed_roles_or_users"}
    assert wanted <= set(shown)
    assert shown["allowed_roles_or_users"] == [journey.ROLE]
    refused = running.ask("GET", "/checkpoints?status=Gone", **running.signed_in())
    assert refused.json()["message"].startswith('instance value ("Gone") not found in enum')


def test_what_one_may_not_see_is_not_there(running: Running, admin: Client) -> None:
    hidden = uploaded(admin, unique())
    for checkpoint_id in (hidden, ABSENT):
        for method, body in (("GET", None), ("PUT", {"status": "Disabled"})):
            answer = running.ask(method, f"/checkpoints/{checkpoint_id}", body, **running.signed_in())
            assert (answer.status_code, answer.json()["message"]) == (
                404,
                f"checkpoint with id {checkpoint_id} not found",
            )


def test_a_creator_is_somebody_who_exists(running: Running, admin: Client) -> None:
    body = files(unique(), params={"creator": journey.USER})
    made = admin.call("POST", "/checkpoints", body)["checkpoint"]
    assert (made["params"]["creator"], made["allowed_roles_or_users"]) == (journey.USER, [journey.ROLE])
    with pytest.raises(DemoFailed, match='400: user: "nobody-at-all" not exist'):
        admin.call("POST", "/checkpoints", files(unique(), params={"creator": "nobody-at-all"}))
    answer = running.ask(
        "POST", "/checkpoints", files(unique(), params={"creator": "admin"}), **running.signed_in()
    )
    assert answer.status_code == 403


def test_deleting_needs_the_right_and_ignores_what_is_absent(
    running: Running, admin: Client, store: ObjectStore
) -> None:
    checkpoint_id = uploaded(running.artist, unique())
    body = {"checkpoint_id_list": [checkpoint_id, ABSENT]}
    assert running.ask("DELETE", "/checkpoints", body, **running.signed_in()).status_code == 403
    assert admin.call("DELETE", "/checkpoints", body) is None
    assert admin.call("DELETE", "/checkpoints", body) is None
    assert list(store.keys_under(f"Lora/checkpoint/custom/{checkpoint_id}/")) == []


def test_a_checkpoint_that_a_job_uses_is_deleted_when_the_job_ends(
    running: Running, admin: Client, store: ObjectStore
) -> None:
    name = unique("in-use")
    journey.upload_checkpoint(running.artist, CHECKPOINT, name)
    found = running.artist.call("GET", "/checkpoints", types="Stable-diffusion")["checkpoints"]
    (checkpoint_id,) = [one["id"] for one in found if one["name"] == [name]]
    job_id = running.start(PARAMETERS | {"steps": 12}, model=name)
    admin.call("DELETE", "/checkpoints", {"checkpoint_id_list": [checkpoint_id]})
    with pytest.raises(DemoFailed, match="is not found"):
        running.start(PARAMETERS, model=name)
    *_, job = journey.follow_job(running.artist, job_id)
    assert job["status"] == "succeed"
    folder = f"Stable-diffusion/checkpoint/custom/{checkpoint_id}/"
    until(lambda: not list(store.keys_under(folder)), 150)  # what a job was told of stays a while


def test_the_documented_command_uploads_through_the_gateway(
    running: Running, admin: Client, tmp_path: Path
) -> None:
    (line,) = [
        line
        for line in (ROOT / "docs" / "checkpoints.md").read_text().splitlines()
        if line.startswith("sdfleet upload ")
    ]
    command, _, name, *_ = shlex.split(line)
    (tmp_path / name).write_bytes(safetensors(17 * 2**20))
    account = {
        "SDFLEET_URL": running.target.url + "/prod",
        "SDFLEET_API_KEY": running.target.api_key,
        "SDFLEET_USERNAME": running.target.username,
        "SDFLEET_PASSWORD": running.target.password,
    }
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command)), *shlex.split(line)[1:]],
        env=os.environ | account,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert of(admin, done.stdout.strip())["name"] == [name]


def test_pages_of_other_origins_cannot_use_presigned_urls(running: Running) -> None:
    name = unique()
    (url,) = running.artist.call("POST", "/checkpoints", files(name))["s3PresignUrl"][name]
    headers = {"Origin": "https://evil.example.org", "Access-Control-Request-Method": "PUT"}
    answer = requests.options(url, headers=headers, timeout=10)
    assert "Access-Control-Allow-Origin" not in answer.headers
