"""Imports by URL from a real HTTP server that behaves in every way that servers do."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from werkzeug.test import TestResponse

from services.checkpoints import fetching, sources
from services.checkpoints.storage import CheckpointStorage
from tests.checkpoints.conftest import Service, safetensors, unique
from tests.checkpoints.source import Handler, Source, make_certificate, plain, running_source, send

MIB = 2**20


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with running_source() as running:
        yield running


@pytest.fixture(scope="module")
def importer(start_service: Callable[..., Service], source: Source) -> Service:
    """A service that may import from the source, in small parts; its worker is the test itself."""
    return start_service(
        CHECKPOINTS_IMPORT_ALLOW=source.host,
        CHECKPOINTS_IMPORT_MAX_GB="0.02",
        CHECKPOINTS_IMPORT_PATIENCE="0.5",
        CHECKPOINTS_IMPORT_MIN_RATE="100000",
    )


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, importer: Service) -> None:
    monkeypatch.setattr(fetching, "PART_BYTES", 5 * MIB)
    monkeypatch.setattr(fetching, "TRIES", 2)
    importer.keep_to_itself()


def ask(service: Service, *urls: str) -> TestResponse:
    return service.call("POST", "/checkpoints", {"checkpoint_type": "Lora", "urls": list(urls)})


def imported(service: Service, *urls: str) -> dict[str, Any]:
    """The checkpoint after its import has run."""
    answer = ask(service, *urls)
    assert answer.status_code == 202, answer.text
    checkpoint_id = answer.json["data"]["checkpoint"]["id"]
    service.parts.imports.run(checkpoint_id)
    return shown(service, checkpoint_id)


def shown(service: Service, checkpoint_id: str) -> dict[str, Any]:
    return dict(service.call("GET", f"/checkpoints/{checkpoint_id}").json["data"]["checkpoint"])


def stored(service: Service, checkpoint: dict[str, Any]) -> bytes | None:
    key = f"Lora/checkpoint/custom/{checkpoint['id']}/{checkpoint['name'][0]}"
    return service.parts.storage.objects.read(key, 10**9)


def assert_failed(service: Service, checkpoint: dict[str, Any], reason: str) -> None:
    """The sentence is on the checkpoint; no object, part or name is left."""
    assert checkpoint["status"] == "Initial"
    assert re.search(reason, checkpoint["params"]["error"]), checkpoint["params"]["error"]
    assert "secret" not in json.dumps(checkpoint)
    (record,) = service.leftovers(checkpoint["id"])
    assert record["stage"] == "failed"


def test_an_import_is_accepted_and_becomes_active(importer: Service, source: Source) -> None:
    content = safetensors(11 * MIB)
    url = source.add(content)
    answer = ask(importer, url)
    assert (answer.status_code, answer.json["message"]) == (
        202,
        "Checkpoint creation in progress, please check later",
    )
    begun = answer.json["data"]["checkpoint"]
    assert (begun["status"], begun["name"]) == ("Initial", [])
    importer.parts.imports.run(begun["id"])
    checkpoint = shown(importer, begun["id"])
    assert checkpoint["status"] == "Active"
    assert checkpoint["name"] == [url.rpartition("/")[2].partition("?")[0]]
    assert stored(importer, checkpoint) == content
    assert "secret" not in json.dumps(
        importer.parts.database["checkpoints"].find_one({"_id": begun["id"]}), default=str
    )
    body = {"username": "ann", "models": {"Lora": checkpoint["name"]}}
    (model,) = importer.call("POST", "/internal/resolve", body, importer.keys.service()).json["models"]
    assert model["sha256"] == hashlib.sha256(content).hexdigest()


def test_several_urls_make_one_checkpoint(importer: Service, source: Source) -> None:
    urls = [source.add(safetensors(size)) for size in (10, 20, 30, 40)]
    checkpoint = imported(importer, *urls)
    assert checkpoint["status"] == "Active"
    assert checkpoint["name"] == [url.rpartition("/")[2].partition("?")[0] for url in urls]


def test_the_name_comes_from_content_disposition(importer: Service, source: Source) -> None:
    name, content = unique("ü said"), safetensors()

    def attachment(handler: Handler, content: bytes) -> None:
        quoted = "".join(f"%{byte:02X}" for byte in name.encode())
        handler.start(
            200, Content_Length=len(content), Content_Disposition=f"attachment; filename*=UTF-8''{quoted}"
        )
        handler.wfile.write(content)

    assert imported(importer, source.add(content, how=attachment))["name"] == [name]


def test_redirects_are_followed_and_name_the_file_of_the_link(importer: Service, source: Source) -> None:
    target, name = source.add(safetensors(), "hash-without-suffix-" + unique("x")[:-12]), unique("link")

    def away(handler: Handler, _: bytes) -> None:
        handler.start(302, Location=target, Content_Length=0)

    checkpoint = imported(importer, source.add(b"", name, away))
    assert (checkpoint["status"], checkpoint["name"]) == ("Active", [name])


def test_an_answer_of_unknown_length_is_imported(importer: Service, source: Source) -> None:
    content = safetensors(6 * MIB)

    def chunked(handler: Handler, content: bytes) -> None:
        handler.start(200, Transfer_Encoding="chunked")
        for start in range(0, len(content), MIB):
            piece = content[start : start + MIB]
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.write(b"0\r\n\r\n")

    checkpoint = imported(importer, source.add(content, how=chunked))
    assert (checkpoint["status"], stored(importer, checkpoint)) == ("Active", content)


def test_a_broken_connection_is_gone_on_with_where_it_broke(importer: Service, source: Source) -> None:
    content = safetensors(11 * MIB)
    url = source.add(content, how=lambda handler, content: send(handler, content, 4 * MIB))
    checkpoint = imported(importer, url)
    assert (checkpoint["status"], stored(importer, checkpoint)) == ("Active", content)
    path = f"/{checkpoint['name'][0]}"
    assert source.ranges[path] == [None, f"bytes={4 * MIB}-", f"bytes={8 * MIB}-"]


def test_a_file_that_changes_in_between_is_begun_anew(importer: Service, source: Source) -> None:
    old, new, asked = safetensors(11 * MIB), safetensors(8 * MIB), []

    def changing(handler: Handler, _: bytes) -> None:
        asked.append(1)
        send(handler, old, 7 * MIB, '"old"') if len(asked) == 1 else send(handler, new, len(new), '"new"')

    checkpoint = imported(importer, source.add(b"", how=changing))
    assert (checkpoint["status"], stored(importer, checkpoint)) == ("Active", new)


def test_a_file_without_an_etag_that_grows_on_the_way_is_refused(importer: Service, source: Source) -> None:
    old, new = safetensors(11 * MIB), safetensors(12 * MIB)

    def growing(handler: Handler, _: bytes) -> None:
        if handler.headers.get("Range"):
            send(handler, new, len(new))
            return
        handler.start(200, Content_Length=len(old))
        handler.wfile.write(old[: 7 * MIB])
        handler.close_connection = True

    checkpoint = imported(importer, source.add(b"", how=growing))
    assert_failed(importer, checkpoint, f"it changed from {len(old)} to {len(new)} bytes on the way$")


def _status(status: int) -> Callable[[Handler, bytes], None]:
    return lambda handler, _: handler.start(status, Content_Length=0)


def _loop(handler: Handler, _: bytes) -> None:
    handler.start(302, Location=handler.path, Content_Length=0)


def _to(location: str) -> Callable[[Handler, bytes], None]:
    return lambda handler, _: handler.start(302, Location=location, Content_Length=0)


def _trickle(handler: Handler, content: bytes) -> None:
    handler.start(200, Content_Length=len(content))
    for byte in content[:100]:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.05)


def _silent(handler: Handler, _: bytes) -> None:
    time.sleep(2)


def _stalls(handler: Handler, content: bytes) -> None:
    handler.start(200, Content_Length=len(content))
    handler.wfile.write(content[:100])
    time.sleep(2)


def _lies(handler: Handler, content: bytes) -> None:
    handler.start(200, Content_Length=len(content) + 1000)
    handler.wfile.write(content)
    handler.close_connection = True


def _endless(handler: Handler, _: bytes) -> None:
    handler.start(200, Content_Type="application/octet-stream")
    while True:
        handler.wfile.write(bytes(MIB))


def _zipped(handler: Handler, _: bytes) -> None:
    handler.start(200, Content_Encoding="gzip", Content_Length=0)


@pytest.mark.parametrize(
    ("content", "how", "reason"),
    [
        (b"", _status(404), "URL 1 cannot be imported: it answers 404$"),
        (b"", _status(401), "it answers 401$"),
        (b"", _status(503), r"the connection broke 2 times \(HTTPError\) after 0 of unknown bytes"),
        (b"", _loop, "it redirects more than 5 times$"),
        (b"", _to("http://127.0.0.1:1/a.safetensors"), "127.0.0.1 is not a public address$"),
        (b"", _to("http://[::ffff:a9fe:a9fe]/latest/meta-data"), "is not a public address$"),
        (b"", _to("file:///etc/passwd"), 'only http and https are fetched, not "file"$'),
        (b"", _zipped, "it answers in a compressed form"),
        (safetensors(), _trickle, "bytes a second, too slow to wait for$"),
        (safetensors(), _lies, "the connection broke 2 times"),
        (b"", _endless, "it has more than 20000000 bytes$"),
        (bytes(21 * 10**6), plain, "it has 21000000 bytes, at most 20000000 are imported$"),
        (b"PK\x03\x04" + bytes(1000), plain, "is not a safetensors file: it is a zip archive"),
        (b"<!DOCTYPE html><html>please log in</html>", plain, "is not a safetensors file: it is a web page"),
        (safetensors()[:-1], plain, "is truncated"),
        (b"", plain, "it holds 0 bytes"),
    ],
)
def test_a_failed_import_says_why_and_leaves_nothing(
    importer: Service, source: Source, content: bytes, how: Any, reason: str
) -> None:
    assert_failed(importer, imported(importer, source.add(content, how=how)), reason)


@pytest.mark.parametrize(
    ("how", "received"), [(_silent, r"0 of unknown bytes$"), (_stalls, r"100 of \d+ bytes$")]
)
def test_a_source_that_hangs_is_given_up(
    importer: Service, source: Source, monkeypatch: pytest.MonkeyPatch, how: Any, received: str
) -> None:
    monkeypatch.setattr(sources, "READ_SECONDS", 0.7)
    checkpoint = imported(importer, source.add(safetensors(), how=how))
    assert_failed(importer, checkpoint, rf"the connection broke 2 times \(ReadTimeout\w*\) after {received}")


def test_a_file_comes_over_tls_from_a_server_with_a_good_certificate(
    start_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = make_certificate(tmp_path / "server.pem")
    with running_source(certificate) as source:
        service = start_service(
            CHECKPOINTS_IMPORT_ALLOW=source.host, CHECKPOINTS_IMPORT_TOKENS="127.0.0.1=a-token"
        )
        service.keep_to_itself()
        content = safetensors(6 * MIB)
        told = []

        def telling(handler: Handler, content: bytes) -> None:
            told.append(handler.headers.get("Authorization"))
            plain(handler, content)

        url = source.add(content, how=telling)
        reason = r"the connection broke 2 times \(SSLError\)"
        assert_failed(service, imported(service, url), reason)
        monkeypatch.setattr("certifi.where", lambda: str(certificate))
        monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(certificate))
        checkpoint = imported(service, url)
        assert (checkpoint["status"], stored(service, checkpoint)) == ("Active", content)
        assert told == ["Bearer a-token"]


def test_a_pickle_of_no_known_kind_is_refused_by_its_name(importer: Service, source: Source) -> None:
    checkpoint = imported(importer, source.add(b"cos\nsystem\n", f"{unique()}.pkl"))
    assert_failed(importer, checkpoint, "convert it to safetensors first$")


def test_a_name_that_is_taken_fails_the_import_and_leaves_the_other(
    importer: Service, source: Source
) -> None:
    first = importer.active()
    checkpoint = imported(importer, source.add(safetensors(), first.name))
    assert_failed(
        importer, checkpoint, f"^{first.name} already exists, please use another or rename/delete exists$"
    )
    assert importer.status(first.id) == "Active"


def test_one_failed_file_fails_the_whole_import(importer: Service, source: Source) -> None:
    good, bad = source.add(safetensors(6 * MIB)), source.add(b"", how=_status(404))
    assert_failed(importer, imported(importer, good, bad), "URL 2 cannot be imported: it answers 404")
    name = good.rpartition("/")[2].partition("?")[0]
    assert importer.begin(name)


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([], "array is too short: must have at least 1 elements but instance has 0 elements"),
        ([1], 'instance type (integer) does not match any allowed primitive type (allowed: ["string"])'),
        (["file:///etc/passwd"], 'URL 1 cannot be imported: only http and https are fetched, not "file"'),
        (
            ["https://a.org/x", "nonsense"],
            'URL 2 cannot be imported: only http and https are fetched, not ""',
        ),
        (["https://u:p@a.org/x"], "URL 1 cannot be imported: it holds a user name or a password"),
        (["https://a.org/x"] * 2, "a URL is named twice in one request"),
    ],
)
def test_wrong_urls_are_refused_at_once(importer: Service, urls: list[Any], message: str) -> None:
    answer = ask(importer, *urls)
    assert (answer.status_code, answer.json["message"]) == (400, message)


def test_progress_is_shown_and_deleting_cancels(
    importer: Service, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.checkpoints.progress.PROGRESS_SECONDS", 0.05)
    go_on = threading.Event()

    def halting(handler: Handler, content: bytes) -> None:
        handler.start(200, Content_Length=len(content))
        for start in range(0, len(content), MIB // 4):
            handler.wfile.write(content[start : start + MIB // 4])
            time.sleep(0.05)
            if start > 6 * MIB:
                go_on.wait(10)

    content = safetensors(16 * MIB)
    checkpoint_id = ask(importer, source.add(content, how=halting)).json["data"]["checkpoint"]["id"]
    running = threading.Thread(target=importer.parts.imports.run, args=(checkpoint_id,))
    running.start()
    deadline = time.monotonic() + 10
    while (progress := shown(importer, checkpoint_id)["params"].get("progress", {"bytes": 0}))[
        "bytes"
    ] < 5.5 * MIB:
        assert time.monotonic() < deadline, progress
        time.sleep(0.05)
    assert progress["total"] == len(content)
    assert progress["bytes_per_second"] > 0
    assert progress["remaining_seconds"] > 0
    assert importer.call("DELETE", "/checkpoints", {"checkpoint_id_list": [checkpoint_id]}).status_code == 204
    assert importer.call("GET", f"/checkpoints/{checkpoint_id}").status_code == 404
    go_on.set()
    running.join(10)
    assert importer.leftovers(checkpoint_id) == []


def test_when_s3_fails_the_import_goes_on_later(
    importer: Service, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, real = safetensors(11 * MIB), CheckpointStorage.put_part

    def failing(storage: CheckpointStorage, key: str, upload_id: str, number: int, piece: bytearray) -> str:
        if number == 2:
            raise EndpointConnectionError(endpoint_url="s3")
        return real(storage, key, upload_id, number, piece)

    url = source.add(content)
    checkpoint_id = ask(importer, url).json["data"]["checkpoint"]["id"]
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStorage, "put_part", failing)
        with pytest.raises(EndpointConnectionError):
            importer.parts.imports.run(checkpoint_id)
    assert importer.parts.repository.unfinished_work(["importing"]) == [checkpoint_id]
    importer.parts.imports.run(checkpoint_id)
    assert stored(importer, shown(importer, checkpoint_id)) == content
    assert source.ranges["/" + url.rpartition("/")[2].partition("?")[0]] == [None, f"bytes={5 * MIB}-"]


def test_an_upload_that_a_dead_worker_began_and_did_not_note_is_freed(
    importer: Service, source: Source
) -> None:
    url = source.add(safetensors())
    checkpoint_id = ask(importer, url).json["data"]["checkpoint"]["id"]
    folder = f"Lora/checkpoint/custom/{checkpoint_id}/"
    importer.parts.storage.begin_upload(f"{folder}a.safetensors")
    importer.parts.imports.run(checkpoint_id)
    assert shown(importer, checkpoint_id)["status"] == "Active"
    assert importer.parts.storage.open_uploads(folder) == []
