"""Downloads in parallel ranges, from a storage that a test can break: nothing unfinished is ever trusted."""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gpu_worker import download as download_module
from gpu_worker.client import make_session
from gpu_worker.download import download
from gpu_worker.errors import Cancelled, Passing, RequestFault
from gpu_worker.jobs import ModelFile

RANGE = 10_000
CONTENT = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(3000))  # 96,000 bytes: 10 ranges
LAST = 9


class Storage:
    """Serves `content`; `cut` says how many bytes of an answer are sent, by the start of what was asked."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag = "etag"
        self.ranges = True
        self.asked: list[str] = []
        self.at_once, self.most_at_once = 0, 0
        self.cut: Callable[[int], int | None] = lambda start: None
        self.status: Callable[[int], int | None] = lambda start: None
        self.delay = 0.0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        # A client that stops in the middle is what these tests are about, no error to be printed.
        self.server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def model(self, **changes: object) -> ModelFile:
        url = f"http://127.0.0.1:{self.server.server_port}/model"
        file = ModelFile("Lora", "a", "id-a", url, len(CONTENT), "etag")
        return replace(file, **changes)  # type: ignore[arg-type]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        storage = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments: object) -> None: ...

            def do_GET(self) -> None:
                with storage.lock:
                    storage.asked.append(self.headers.get("Range", ""))
                    storage.at_once += 1
                    storage.most_at_once = max(storage.most_at_once, storage.at_once)
                try:
                    time.sleep(storage.delay)
                    storage.answer(self)
                finally:
                    with storage.lock:
                        storage.at_once -= 1

        return Handler

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", "")) if self.ranges else None
        size = len(self.content)
        start = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1 if wanted and wanted[2] else size, size)
        status = self.status(start) or ((206 if start < size else 416) if wanted else 200)
        data = self.content[start:end] if status < 300 else b""
        handler.send_response(status)
        handler.send_header("ETag", f'"{self.etag}"')
        handler.send_header("Content-Length", str(len(data)))
        if status in (206, 416):
            what = f"{start}-{end - 1}" if status == 206 else "*"
            handler.send_header("Content-Range", f"bytes {what}/{size}")
        handler.end_headers()
        sent = self.cut(start)
        handler.wfile.write(data[:sent])
        if sent is not None:
            handler.close_connection = True


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    monkeypatch.setattr(download_module, "RANGE_BYTES", RANGE)
    monkeypatch.setattr(download_module, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(download_module, "PAUSE_SECONDS", 0.01)
    running = Storage()
    yield running
    running.server.shutdown()
    running.server.server_close()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "a.part"


def fetch(model: ModelFile, part: Path, check: Callable[[], None] = lambda: None) -> None:
    """Downloads and compares: the content, its hash, and that nothing but the content is left."""
    assert download(make_session(), model, part, check) == hashlib.sha256(CONTENT).hexdigest()
    assert part.read_bytes() == CONTENT
    assert list(part.parent.iterdir()) == [part]


def asked_for(index: int) -> str:
    return f"bytes={index * RANGE}-{min((index + 1) * RANGE, len(CONTENT)) - 1}"


def interrupt(storage: Storage, part: Path) -> set[str]:
    """A download that ends, with its range 3 missing, as that of a killed process; what it had complete."""
    storage.status = lambda start: 503 if start == 3 * RANGE else None
    with pytest.raises(Passing, match="the storage does not answer"):
        download(make_session(), storage.model(), part)
    storage.status = lambda start: None
    finished = part.with_suffix(".ranges").read_text().split("\n")[1:-1]
    storage.asked.clear()
    return {asked_for(int(index)) for index in finished}


def test_every_range_is_fetched_once_and_several_at_once(storage: Storage, part: Path) -> None:
    storage.delay = 0.1
    fetch(storage.model(), part)
    assert sorted(storage.asked) == sorted(asked_for(index) for index in range(LAST + 1))
    assert 2 <= storage.most_at_once <= download_module.CONNECTIONS


def test_a_file_of_one_range_is_one_plain_get(
    storage: Storage, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download_module, "RANGE_BYTES", len(CONTENT))
    fetch(storage.model(), part)
    assert storage.asked == [""]


def test_a_storage_without_ranges_is_read_in_one_stream(storage: Storage, part: Path) -> None:
    storage.ranges = False
    fetch(storage.model(), part)
    assert storage.asked.count("") == 1


def test_whichever_range_shows_it_first_that_there_are_none(storage: Storage, part: Path) -> None:
    storage.ranges = False
    storage.status = lambda start: 503 if storage.asked[-1] == asked_for(0) else None
    fetch(storage.model(), part)


def test_a_stream_without_ranges_that_breaks_begins_anew(storage: Storage, part: Path) -> None:
    storage.ranges = False
    cuts = iter([50_000, 70_000])
    storage.cut = lambda start: next(cuts, None) if storage.asked[-1] in ("", "bytes=50000-") else None
    fetch(storage.model(), part)


def test_a_broken_range_goes_on_where_it_broke(storage: Storage, part: Path) -> None:
    cuts = {2 * RANGE: 4000, 2 * RANGE + 4000: 1000}
    storage.cut = cuts.get
    fetch(storage.model(), part)
    assert {"bytes=24000-29999", "bytes=25000-29999"} <= set(storage.asked)
    assert len(storage.asked) == LAST + 1 + 2


def test_a_silent_storage_is_given_up_after_a_few_attempts(storage: Storage, part: Path) -> None:
    storage.status = lambda start: 503
    with pytest.raises(Passing, match="the storage does not answer"):
        download(make_session(), storage.model(), part)
    for index in range(LAST + 1):
        assert storage.asked.count(asked_for(index)) <= download_module.ATTEMPTS_WITHOUT_PROGRESS


def test_what_an_ended_process_finished_is_not_fetched_again(storage: Storage, part: Path) -> None:
    finished = interrupt(storage, part)
    assert finished
    fetch(storage.model(), part)
    assert not finished & set(storage.asked)
    assert asked_for(3) in storage.asked


@pytest.mark.parametrize(
    "spoil",
    [
        lambda notes: notes.unlink(),
        lambda notes: notes.write_text(notes.read_text().replace('"etag": "etag"', '"etag": "other"')),
        lambda notes: notes.write_text(notes.read_text().replace('"range": 10000', '"range": 5000')),
        lambda notes: notes.write_text("not notes\n0\n3\n"),
    ],
)
def test_a_part_without_notes_of_this_very_file_is_not_trusted(
    storage: Storage, part: Path, spoil: Callable[[Path], None]
) -> None:
    interrupt(storage, part)
    spoil(part.with_suffix(".ranges"))
    part.write_bytes(bytes(len(CONTENT)))
    fetch(storage.model(), part)
    assert len(set(storage.asked)) == LAST + 1  # a busy machine may ask for one twice


def test_notes_of_an_earlier_boot_are_not_trusted(
    storage: Storage, part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(storage, part)
    part.write_bytes(bytes(len(CONTENT)))
    monkeypatch.setattr(download_module, "BOOT_ID", tmp_path / "another")
    fetch(storage.model(), part)


def test_a_note_that_was_not_written_to_its_end_does_not_count(storage: Storage, part: Path) -> None:
    interrupt(storage, part)
    with part.with_suffix(".ranges").open("a") as notes:
        notes.write("3")
    fetch(storage.model(), part)
    assert asked_for(3) in storage.asked


def test_notes_whose_part_was_cut_do_not_count(storage: Storage, part: Path) -> None:
    interrupt(storage, part)
    with part.with_suffix(".ranges").open("a") as notes:
        notes.write("".join(f"{index}\n" for index in range(LAST + 1)))
    part.write_bytes(b"")
    with pytest.raises(Passing, match="was cut short"):
        download(make_session(), storage.model(), part)
    fetch(storage.model(), part)


def test_a_check_that_raises_stops_the_threads_and_what_is_left_can_be_resumed(
    storage: Storage, part: Path
) -> None:
    let_go, pending = threading.Event(), threading.Event()

    def hold(start: int) -> None:
        if start >= 5 * RANGE:
            pending.set()
            let_go.wait(60)

    def check() -> None:
        if pending.is_set():
            raise Cancelled

    storage.status = hold
    with pytest.raises(Cancelled):
        download(make_session(), storage.model(), part, check)
    # It did not wait for the answers that the storage still holds back.
    assert not let_go.is_set()
    assert storage.at_once > 0
    let_go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("download"):
            thread.join(30)
            assert not thread.is_alive()
    fetch(storage.model(), part)


@pytest.mark.parametrize(
    ("change", "fault", "sentence"),
    [
        ({"etag": "other"}, RequestFault, "was replaced in storage: its ETag is not that of its record"),
        ({"size": 95_000}, RequestFault, "has 96000 bytes in storage, its record says 95000"),
        ({"size": 990_000}, RequestFault, "has 96000 bytes in storage, its record says 990000"),
        ({"sha256": "0" * 64}, Passing, "arrived damaged: its sha256 is not that of its record"),
    ],
)
def test_a_file_that_is_not_what_its_record_says_is_refused(
    storage: Storage, part: Path, change: dict[str, object], fault: type[Exception], sentence: str
) -> None:
    with pytest.raises(fault, match=sentence):
        download(make_session(), storage.model(**change), part)


@pytest.mark.parametrize(
    ("status", "fault", "sentence"),
    [
        (404, RequestFault, "is not in storage any more"),
        (403, Passing, "its URL is no longer valid"),
    ],
)
def test_one_refused_range_ends_the_download(
    storage: Storage, part: Path, status: int, fault: type[Exception], sentence: str
) -> None:
    storage.status = lambda start: status if start == LAST * RANGE else None
    with pytest.raises(fault, match=sentence):
        download(make_session(), storage.model(), part)


def test_ranges_of_two_objects_are_never_put_together(storage: Storage, part: Path) -> None:
    storage.delay = 0.05

    def replaced(start: int) -> None:
        storage.etag = "new" if start == LAST * RANGE else "etag"

    storage.status = replaced
    with pytest.raises(RequestFault, match="was replaced in storage"):
        download(make_session(), storage.model(etag=""), part)
