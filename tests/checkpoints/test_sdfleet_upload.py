"""`sdfleet upload`, against the service and a real S3."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server

from sdfleet_cli import parts, upload
from sdfleet_cli.__main__ import main
from services.common.identity import HEADER
from tests.checkpoints.conftest import PART, Service, put_parts, safetensors, unique

KEY = "the-key"


class Gateway:
    """Lets a client with the key and ann's password in, as the gateway does."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.url = ""
        self.app = Flask("gateway")
        self.app.add_url_rule("/<path:path>", view_func=self.answer, methods=["GET", "POST", "PUT"])

    def answer(self, path: str) -> Response | tuple[Response, int]:
        if request.headers.get("x-api-key") != KEY:
            return jsonify(statusCode=403, message="Forbidden"), 403
        if path == "auth/token":
            if request.json != {"username": "ann", "password": "right"}:
                return jsonify(statusCode=401, message="Unauthorized"), 401
            return jsonify(statusCode=200, data={"access_token": "ann's"})
        if request.headers.get("Authorization") != "Bearer ann's":
            return jsonify(statusCode=401, message="Unauthorized"), 401
        passed = self.service.app.test_client().open(
            f"/{path}",
            method=request.method,
            query_string=request.query_string.decode(),
            data=request.data,
            headers={HEADER: self.service.user()[HEADER], "Content-Type": "application/json"},
        )
        return Response(passed.data, passed.status_code, content_type=passed.content_type)


@pytest.fixture(scope="module")
def gateway(service: Service) -> Iterator[Gateway]:
    running = Gateway(service)
    server = make_server("127.0.0.1", 0, running.app, threaded=True)
    running.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    server.shutdown()
    thread.join()


@pytest.fixture(autouse=True)
def account(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user has in the environment; small parts, no pauses."""
    monkeypatch.setenv("SDFLEET_URL", gateway.url)
    monkeypatch.setenv("SDFLEET_API_KEY", KEY)
    monkeypatch.setenv("SDFLEET_USERNAME", "ann")
    monkeypatch.setenv("SDFLEET_PASSWORD", "right")
    monkeypatch.setattr(parts, "LEAST_PART_BYTES", PART)
    monkeypatch.setattr(upload, "PAUSE_SECONDS", 0.0)


@pytest.fixture()
def file(tmp_path: Path) -> Path:
    """A model of three parts."""
    path = tmp_path / unique()
    path.write_bytes(safetensors(11 * 2**20))
    return path


@pytest.fixture()
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs to which parts were sent."""
    urls: list[str] = []
    real = requests.put

    def put(url: str, **options: Any) -> requests.Response:
        urls.append(url)
        return real(url, **options)

    monkeypatch.setattr(requests, "put", put)
    return urls


def content_of(service: Service, checkpoint_id: str, name: str) -> bytes | None:
    return service.parts.storage.objects.read(f"Lora/checkpoint/custom/{checkpoint_id}/{name}", 10**9)


def test_a_file_is_uploaded_and_its_checkpoint_printed(
    service: Service, file: Path, sent: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upload", str(file), "--type", "Lora", "--allow", "*", "--message", "mine"]) == 0
    checkpoint_id = capsys.readouterr().out.strip()
    checkpoint = service.call("GET", f"/checkpoints/{checkpoint_id}").json["data"]["checkpoint"]
    assert (checkpoint["status"], checkpoint["allowed_roles_or_users"]) == ("Active", ["*"])
    assert checkpoint["params"]["message"] == "mine"
    assert len(sent) == 3
    assert content_of(service, checkpoint_id, file.name) == file.read_bytes()


def test_an_interrupted_upload_goes_on_with_what_is_missing(
    service: Service, file: Path, sent: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    begun = service.begin(file.name, parts=3)
    ((_, urls),) = begun["s3PresignUrl"].items()
    put_parts(urls[:1], [file.read_bytes()[:PART]])
    sent.clear()
    assert main(["upload", str(file), "--type", "Lora"]) == 0
    assert capsys.readouterr().out.strip() == begun["checkpoint"]["id"]
    assert sorted(url.partition("partNumber=")[2][0] for url in sent) == ["2", "3"]
    assert content_of(service, begun["checkpoint"]["id"], file.name) == file.read_bytes()


def test_a_part_that_is_lost_on_the_way_is_sent_again(
    service: Service, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, tries = requests.put, list[int]()

    def breaking(url: str, **options: Any) -> requests.Response:
        tries.append(1)
        if len(tries) <= 2:
            raise requests.ConnectionError
        return real(url, **options)

    monkeypatch.setattr(requests, "put", breaking)
    assert main(["upload", str(file), "--type", "Lora"]) == 0
    assert len(tries) == 5
    assert content_of(service, capsys.readouterr().out.strip(), file.name) == file.read_bytes()


def test_a_pickle_is_waited_for_until_it_cannot_be_converted(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("services.checkpoints.sandbox.network_cut", lambda: None)
    monkeypatch.setattr(service.parts.uploads, "_ask_to_verify", service_verifies(service))
    path = tmp_path / unique("old", ".ckpt")
    path.write_bytes(b"PK\x03\x04")
    assert main(["upload", str(path), "--type", "Lora"]) == 1
    assert "cannot start a process without network" in capsys.readouterr().err


def service_verifies(service: Service) -> Callable[[str], None]:
    """Does the background work beside the request, as the Celery worker does."""

    def start(checkpoint_id: str) -> None:
        threading.Timer(0.2, service.parts.uploads.verify, [checkpoint_id]).start()

    return start


def test_another_file_of_the_same_name_is_not_mixed_in(
    service: Service, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = service.begin(file.name, parts=3)
    ((_, urls),) = begun["s3PresignUrl"].items()
    put_parts(urls[:1], [bytes(PART)])
    assert main(["upload", str(file), "--type", "Lora"]) == 1
    error = capsys.readouterr().err
    assert f"part 1 of checkpoint {begun['checkpoint']['id']} is not from this file" in error
    assert error.count("\n") <= 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"SDFLEET_URL": ""}, "--url is missing: give it, or set SDFLEET_URL"),
        ({"SDFLEET_API_KEY": ""}, "--api-key is missing: give it, or set SDFLEET_API_KEY"),
        ({"SDFLEET_PASSWORD": ""}, "--password is missing: give it, or set SDFLEET_PASSWORD"),
        ({"SDFLEET_API_KEY": "wrong"}, "403 Forbidden: check --api-key"),
        ({"SDFLEET_PASSWORD": "wrong"}, "401 Unauthorized: check --username and --password"),
        ({"SDFLEET_URL": "ftp://a"}, "ftp://a is no address"),
        (
            {"SDFLEET_URL": "http://127.0.0.1:1"},
            "http://127.0.0.1:1 does not answer (ConnectionError)",
        ),
    ],
)
def test_each_mistake_is_one_line_with_a_remedy(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    sentence: str,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    assert main(["upload", str(file), "--type", "Lora"]) == 1
    assert capsys.readouterr().err.startswith(f"sdfleet: {sentence}")


def test_a_file_that_is_not_there_or_empty_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upload", str(tmp_path / "none.safetensors"), "--type", "Lora"]) == 1
    assert "cannot be read (No such file or directory): check the path" in capsys.readouterr().err
    (tmp_path / "empty.safetensors").touch()
    assert main(["upload", str(tmp_path / "empty.safetensors"), "--type", "Lora"]) == 1
    assert "is empty" in capsys.readouterr().err


def test_a_wrong_type_gets_the_servers_sentence(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", str(file), "--type", "Loora"]) == 1
    assert "Loora" in capsys.readouterr().err
