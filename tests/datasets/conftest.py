"""The datasets service alone, on real MongoDB and S3; its background work is done by the tests."""

import io
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import requests
from flask import Flask
from PIL import Image
from werkzeug.test import TestResponse

from services.common.settings import read_settings
from services.datasets.app import create_app
from services.datasets.config import Config
from services.datasets.wiring import EXTENSION, Parts
from tests.conftest import EVERYTHING, Keys
from tests.neighbours import Neighbours, neighbours

NO_ALL = tuple(one for one in EVERYTHING if not one.endswith(":all"))


def picture(colour: str = "violet", size: tuple[int, int] = (64, 64), kind: str = "PNG") -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


@dataclass(frozen=True)
class Service:
    """The service as its users and the training service call it."""

    app: Flask
    keys: Keys
    others: Neighbours

    @property
    def parts(self) -> Parts:
        parts: Parts = self.app.extensions[EXTENSION]
        return parts

    def user(self, name: str = "ann", roles: tuple[str, ...] = ("artists",), **claims: Any) -> dict[str, str]:
        """Headers of a user with every right but the `:all` ones."""
        return self.keys.user(name, roles, **({"permissions": NO_ALL} | claims))

    def call(
        self, method: str, path: str, body: Any = None, who: dict[str, str] | None = None, **headers: str
    ) -> TestResponse:
        sent = (self.user() if who is None else who) | headers
        return self.app.test_client().open(path, method=method, json=body, headers=sent)

    def create(self, files: dict[str, bytes], **changes: Any) -> str:
        """A data set whose files are uploaded; its name."""
        name = changes.pop("dataset_name", f"set-{uuid.uuid4().hex[:8]}")
        who = changes.pop("who", None)
        body = {"dataset_name": name, "content": [{"filename": one} for one in files]} | changes
        answer = self.call("POST", "/datasets", body, who)
        assert answer.status_code == 201, answer.text
        self.put(answer.json["data"]["s3PresignUrl"], files)
        return name

    @staticmethod
    def put(urls: dict[str, str], files: dict[str, bytes]) -> None:
        """Upload as a client does."""
        for filename, content in files.items():
            requests.put(urls[filename], data=content, timeout=10).raise_for_status()

    def enable(self, name: str) -> None:
        """Enable the data set and verify it."""
        answer = self.call("PUT", f"/datasets/{name}", {"status": "Enabled"})
        assert answer.status_code == 200, answer.text
        self.work()

    def work(self) -> None:
        """All the background work that waits."""
        while waiting := self.parts.repository.waiting_work():
            for dataset_id in waiting:
                self.parts.background.run(dataset_id)

    def shown(self, name: str, who: dict[str, str] | None = None) -> dict[str, Any]:
        answer = self.call("GET", f"/datasets/{name}", who=who)
        assert answer.status_code == 200, answer.text
        return dict(answer.json["data"])

    def files(self, name: str) -> dict[str, dict[str, Any]]:
        """The files of a data set by name, as its owner sees them."""
        return {one["filename"]: one for one in self.shown(name)["data"]}

    def resolve(self, *names: str, **who: Any) -> dict[str, Any]:
        """What the training service hears."""
        body = {"names": list(names), "username": "ann", "roles": ["artists"]} | who
        answer = self.call("POST", "/internal/datasets/resolve", body, self.keys.service("training"))
        assert answer.status_code == 200, answer.text
        return dict(answer.json)


@pytest.fixture(scope="session")
def others() -> Iterator[Neighbours]:
    with neighbours() as running:
        running.answers["names"] = lambda body: {
            "missing_usernames": [name for name in body["usernames"] if name != "ben"],
            "missing_roles": [],
            "roles_of": {"ben": ["artists"]},
        }
        yield running


@pytest.fixture(scope="session")
def service(environment: Callable[..., dict[str, str]], keys: Keys, others: Neighbours) -> Iterator[Service]:
    variables = environment(USERS_URL=others.url, DATASETS_PICTURE_MAX_MEGAPIXELS="1")
    app = create_app(read_settings(Config, variables), users_keys=keys)
    app.extensions[EXTENSION] = replace(app.extensions[EXTENSION], ask=lambda _: None)
    yield Service(app, keys, others)
    database = app.extensions[EXTENSION].database
    database.client.drop_database(database.name)
    database.client.close()
