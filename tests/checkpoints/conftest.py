"""A checkpoints service of its own for each module, and a client that uploads as users do."""

import io
import json
import struct
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import requests
from flask import Flask
from werkzeug.test import TestResponse

from services.checkpoints.app import create_app
from services.checkpoints.config import Config
from services.checkpoints.wiring import EXTENSION, Background, Parts
from stack.infrastructure import Infrastructure
from tests.conftest import EVERYTHING, Keys
from tests.neighbours import Neighbours, neighbours

PART = 5 * 2**20  # S3's smallest part, the last one aside
NO_ALL = tuple(one for one in EVERYTHING if not one.endswith(":all"))


def safetensors(data_bytes: int = 1000, **changes: Any) -> bytes:
    """A valid file with one tensor; `changes` replace members of the tensor's description."""
    entry = {"dtype": "U8", "shape": [data_bytes], "data_offsets": [0, data_bytes]} | changes
    header = json.dumps({"weight": entry, "__metadata__": {"format": "pt"}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(data_bytes)


def pickled(values: Sequence[float] = (1.0, 2.0), name: str = "weight", code: bytes = b"") -> bytes:
    """A state dict with one float32 tensor as `torch.save` writes it, made without torch.

    `code` is pickle opcodes that are run first and leave the stack as it was.
    """
    count = len(values)
    opcodes = (
        b"\x80\x02"
        + code
        + b"}X"
        + struct.pack("<I", len(name))
        + name.encode()
        + b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK"
        + bytes([count])
        + b"tQK\x00K"
        + bytes([count])
        + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs."
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", opcodes)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", struct.pack(f"<{count}f", *values))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def unique(name: str = "model", suffix: str = ".safetensors") -> str:
    """A file name that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:8]}{suffix}"


@dataclass(frozen=True)
class Uploaded:
    """An upload whose parts are all there."""

    id: str
    name: str
    tags: list[dict[str, Any]]


@dataclass(frozen=True)
class Service:
    """The service as its users and the other services call it."""

    app: Flask
    keys: Keys
    environ: dict[str, str]

    @property
    def parts(self) -> Parts:
        parts: Parts = self.app.extensions[EXTENSION]
        return parts

    def keep_to_itself(self) -> None:
        """Send no messages: the test does the background work itself."""
        nobody = Background(lambda _: None, lambda _: None, lambda _: None)
        object.__setattr__(self.parts, "background", nobody)
        self.parts.uploads._ask_to_verify = nobody.verify
        self.parts.moves._ask_to_move = nobody.move

    def user(
        self, username: str = "ann", roles: tuple[str, ...] = ("artists",), **claims: Any
    ) -> dict[str, str]:
        """Headers of a user with every right but the `:all` ones."""
        return self.keys.user(username, roles, **({"permissions": NO_ALL} | claims))

    def admin(self) -> dict[str, str]:
        return self.keys.user("root", ("IT Operator",))

    def call(
        self, method: str, path: str, body: Any = None, who: dict[str, str] | None = None, **more: Any
    ) -> TestResponse:
        headers = (self.user() if who is None else who) | more.pop("headers", {})
        return self.app.test_client().open(path, method=method, json=body, headers=headers, **more)

    def begin(
        self, name: str | None = None, parts: int = 1, who: dict[str, str] | None = None, **more: Any
    ) -> dict[str, Any]:
        """A new checkpoint; the answer's data."""
        file = {"filename": name or unique(), "parts_number": parts} | more.pop("file", {})
        body = {"checkpoint_type": "Lora", "filenames": [file], "params": {"message": "a test"}} | more
        answer = self.call("POST", "/checkpoints", body, who)
        assert answer.status_code == 201, answer.text
        return dict(answer.json["data"])

    def upload(self, content: bytes | None = None, **more: Any) -> Uploaded:
        """A new checkpoint whose file was uploaded in parts and not completed."""
        content = safetensors() if content is None else content
        pieces = [content[start : start + PART] for start in range(0, len(content), PART)] or [b""]
        begun = self.begin(parts=len(pieces), **more)
        ((name, urls),) = begun["s3PresignUrl"].items()
        return Uploaded(begun["checkpoint"]["id"], name, put_parts(urls, pieces))

    def complete(self, uploaded: Uploaded, who: dict[str, str] | None = None, **changes: Any) -> TestResponse:
        body = {"status": "Active", "multi_parts_tags": {uploaded.name: uploaded.tags}} | changes
        return self.call("PUT", f"/checkpoints/{uploaded.id}", body, who)

    def active(
        self, content: bytes | None = None, who: dict[str, str] | None = None, **more: Any
    ) -> Uploaded:
        """An Active checkpoint."""
        uploaded = self.upload(content, who=who, **more)
        answer = self.complete(uploaded, who)
        assert answer.status_code == 200, answer.text
        return uploaded

    def status(self, checkpoint_id: str) -> str | None:
        found = self.parts.repository.get(checkpoint_id)
        return found.status if found else None

    def leftovers(self, checkpoint_id: str) -> list[Any]:
        """What S3 and MongoDB hold of a checkpoint: objects, open uploads, records, names."""
        objects = [key for key in self.parts.storage.objects.keys_under("") if checkpoint_id in key]
        uploads = [one for one in self.parts.storage.open_uploads("") if checkpoint_id in one[0]]
        records = list(self.parts.database["checkpoints"].find({"_id": checkpoint_id}))
        return (
            objects
            + uploads
            + records
            + list(self.parts.database["names"].find({"checkpoint_id": checkpoint_id}))
        )


def put_parts(urls: list[str], pieces: list[bytes]) -> list[dict[str, Any]]:
    """PUT the pieces as a client does; the tags that it keeps."""
    tags = []
    for number, (url, piece) in enumerate(zip(urls, pieces, strict=True), start=1):
        response = requests.put(url, data=piece, timeout=30)
        assert response.status_code == 200, response.text
        tags.append({"ETag": response.headers["ETag"], "PartNumber": number})
    return tags


@pytest.fixture(scope="session")
def others() -> Iterator[Neighbours]:
    """The users, inference and training services: bob is an artist and a critic, and nothing runs."""
    people = {"bob": ["artists", "critics"]}
    with neighbours() as running:
        running.answers["names"] = lambda asked: {
            "missing_usernames": [name for name in asked["usernames"] if name not in people],
            "missing_roles": [],
            "roles_of": {name: people[name] for name in asked["usernames"] if name in people},
        }
        running.answers["jobs-using"] = lambda asked: {"in_use": []}
        running.answers["work-using"] = lambda asked: {"in_use": []}
        yield running


@pytest.fixture(scope="session")
def start_service(parts: Infrastructure, keys: Keys, others: Neighbours) -> Callable[..., Service]:
    """Starts a service of a new test deployment."""

    def start(**more: str) -> Service:
        deployment = uuid.uuid4().hex[:8]
        environ = {
            "MONGODB_URL": parts.mongodb_url,
            "MONGODB_DATABASE_PREFIX": f"test_{deployment}",
            "REDIS_URL": parts.redis_url,
            "S3_ENDPOINT_URL": parts.s3_endpoint_url,
            "AWS_ACCESS_KEY_ID": parts.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": parts.s3_secret_key,
            "S3_BUCKET": f"test-{deployment}",
            "SERVICE_SECRET": keys.service_secret,
            "USERS_URL": others.url,
            "INFERENCE_URL": others.url,
            "TRAINING_URL": others.url,
            "CHECKPOINTS_LEASE_SECONDS": "0.9",
        }
        environ |= more
        return Service(create_app(Config.from_env(environ), keys), keys, environ)

    return start


@pytest.fixture(scope="session")
def service(start_service: Callable[..., Service], parts: Infrastructure) -> Iterator[Service]:
    """One service for all tests; each test uses names of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", parts.redis_url)  # Celery's application reads it when it is first used
        yield start_service()


def one_file(**changes: Any) -> dict[str, Any]:
    """A body that creates a checkpoint of one file."""
    file = {"filename": unique(), "parts_number": 1}
    return {"checkpoint_type": "Lora", "filenames": [file], "params": {}} | changes
