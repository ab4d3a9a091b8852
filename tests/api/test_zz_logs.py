"""No log of any process of the stack holds a secret: looked at last, after all that the other tests did."""

import gzip
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import requests

from services.common.identity import HEADER, make_service_token
from stack.demo import journey
from tests.api.test_main_job import finished
from tests.running import CHECKPOINT, PARAMETERS, Running, safetensors_file

NAME = "logs-user"


class Secrets:
    """What was used, and must be nowhere."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def add(self, *values: str) -> None:
        self.found |= set(values)

    def add_urls_in(self, answer: Any) -> None:
        """The signatures of all presigned URLs in an answer."""
        for url in re.findall(r'https?://[^"\s\\]+', json.dumps(answer)):
            query = parse_qs(urlsplit(url).query)
            for name in ("X-Amz-Signature", "Signature"):
                self.add(*query.get(name, []))


@pytest.fixture()
def used(running: Running) -> Secrets:
    """Every kind of secret, used rightly and wrongly, at every service."""
    used = Secrets()
    _sign_in_and_change(running, used)
    _make_pictures(running, used)
    _refused(running, used)
    kept = json.loads((running.stack.folder / "secrets.json").read_text())
    used.add(*(value for value in kept.values() if isinstance(value, str)))
    return used


def _sign_in_and_change(running: Running, used: Secrets) -> None:
    admin = {"x-api-key": running.target.api_key}
    body = {"username": running.target.username, "password": running.target.password}
    issued = running.ask("POST", "/auth/token", body, **admin).json()
    used.add(running.target.api_key, running.target.password, issued["access_token"], issued["refresh_token"])
    fresh = running.ask("POST", "/auth/token", {"refresh_token": issued["refresh_token"]}, **admin).json()
    used.add(fresh["access_token"], fresh["refresh_token"])
    admin["Authorization"] = f"Bearer {fresh['access_token']}"
    passwords = [f"pass-{secrets.token_hex(12)}" for _ in range(4)]
    used.add(*passwords)
    user = {"username": NAME, "password": passwords[0], "roles": [journey.ROLE], "creator": ""}
    assert running.ask("POST", "/users", user, **admin).status_code == 201
    running.ask("POST", "/users", user | {"password": [passwords[1]]}, **admin)
    running.ask("POST", "/auth/token", {"username": NAME, "password": passwords[1]}, **admin)
    own = running.ask("POST", "/auth/token", {"username": NAME, "password": passwords[0]}, **admin).json()
    used.add(own["access_token"], own["refresh_token"])
    mine = {"x-api-key": running.target.api_key, "Authorization": f"Bearer {own['access_token']}"}
    key = running.ask("POST", "/users/me/api-keys", {"name": "logs"}, **mine).json()["data"]["api_key"]["key"]
    used.add(key)
    for path in ("/users", "/checkpoints", "/endpoints", "/inferences"):
        assert running.ask("GET", f"{path}?token={passwords[2]}", **{"x-api-key": key}).status_code == 200
    change = {"old": passwords[0], "new": passwords[3]}
    assert running.ask("PUT", "/users/me/password", change, **mine).status_code == 200
    running.ask("POST", "/auth/revoke", {"refresh_token": fresh["refresh_token"]}, **admin)


def _make_pictures(running: Running, used: Secrets) -> None:
    prompt, refused = (f"a red circle {secrets.token_hex(12)}" for _ in range(2))
    used.add(prompt, refused, running.signed_in()["Authorization"].removeprefix("Bearer "))
    job = finished(running, running.start(PARAMETERS | {"prompt": prompt, "steps": 2}))
    assert job["status"] == "succeed", job["error"]
    used.add_urls_in(job)
    wanted = {"steps": 2, "prompt": refused, "sampler_name": "no such sampler"}
    assert finished(running, running.start(PARAMETERS | wanted))["status"] == "failed"
    name = f"{secrets.token_hex(4)}.safetensors"
    body = {
        "checkpoint_type": journey.MODEL_TYPE,
        "filenames": [{"filename": name, "parts_number": 1}],
        "params": {"message": "x", "creator": journey.USER},
    }
    made = running.artist.call("POST", "/checkpoints", body)
    used.add_urls_in(made)
    url = made["s3PresignUrl"][name][0]
    requests.put(url, data=safetensors_file({}, 0), timeout=10)
    requests.put(url.replace("X-Amz-Signature=", "X-Amz-Signature=0"), data=b"x", timeout=10)
    source = f"http://127.0.0.1:1/{CHECKPOINT.name}?token={secrets.token_hex(12)}"
    used.add(source.rpartition("=")[2])
    body = {"checkpoint_type": journey.MODEL_TYPE, "urls": [source], "params": {"message": "x"}}
    running.ask("POST", "/checkpoints", body, **running.signed_in())


def _refused(running: Running, used: Secrets) -> None:
    """Tokens at the wrong doors, and what a careless client puts into a path."""
    settings = running.stack.record().settings
    forged = jwt.encode({"aud": "sdfleet-internal", "sub": "x", "exp": 2**31}, "k" * 32, algorithm="HS256")
    strange = make_service_token("stranger", "not the secret of the services" * 2)
    careless = f"careless-{secrets.token_hex(12)}"
    used.add(forged, strange, careless)
    for service in ("users", "checkpoints", "endpoints", "inference", "datasets", "training"):
        for token in (forged, strange):
            for path in ("/users", "/inferences", "/checkpoints", "/endpoints", "/internal/claim"):
                requests.post(settings.url(service) + path, json={}, headers={HEADER: token}, timeout=10)
    for headers in ({"x-api-key": careless}, running.signed_in() | {"Authorization": f"Bearer {careless}"}):
        for path in ("/users", "/inferences", f"/inferences?key={careless}"):
            assert running.ask("POST", path, careless, **headers).status_code in {401, 403}


def logs_of(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and text of every log in a stack's folder, older ones included."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and ("logs" in file.parts or ".log" in file.name):
            content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
            yield str(file.relative_to(folder)), content.decode("utf-8", "replace")


def test_no_log_of_the_whole_stack_holds_a_secret(running: Running, used: Secrets) -> None:
    logs = dict(logs_of(running.stack.folder))
    programs = {"gateway", "users", "checkpoints", "endpoints", "inference", "inference-tasks", "worker-1"}
    assert {f"logs/{program}.log" for program in programs} <= set(logs)
    assert '"path":"/auth/token"' in logs["logs/gateway.log"]
    assert len(used.found) > 20
    assert all(len(secret) >= 12 for secret in used.found)
    held = {
        (name, secret[:6] + "…") for name, text in logs.items() for secret in used.found if secret in text
    }
    assert held == set()
    signed = {
        name for name, text in logs.items() if re.search(r"X-Amz-(Signature|Credential)=|Bearer ey", text)
    }
    assert signed == set()
