"""Checkpoint files on disk: downloaded once, resumed, bounded, never evicted while in use."""

import fcntl
import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Response

from gpu_worker import download as download_module
from gpu_worker import files as files_module
from gpu_worker.client import make_session
from gpu_worker.errors import Cancelled, Passing, RequestFault
from gpu_worker.files import FileCache
from gpu_worker.jobs import ModelFile
from tests.gpu_worker.platform import Platform

MakeCache = Callable[..., FileCache]


@pytest.fixture
def make_cache(tmp_path: Path) -> MakeCache:
    return lambda limit=10_000_000: FileCache(tmp_path / "cache", limit, make_session())


def stored(platform: Platform, tmp_path: Path, name: str, length: int = 1000, **changes: Any) -> ModelFile:
    """A file of random bytes in the fake storage."""
    path = tmp_path / name
    path.write_bytes(os.urandom(length))
    entry = platform.put_file(path) | changes
    return ModelFile(**entry)


def content(cache: FileCache, model: ModelFile) -> bytes:
    with cache.open(model) as file:
        return file.path.read_bytes()


def downloads(platform: Platform, model: ModelFile) -> int:
    return sum(key == f"models/{model.name}" for key, _ in platform.gets)


def test_a_file_is_downloaded_once_and_hashed_on_the_way(
    platform: Platform, tmp_path: Path, make_cache: MakeCache
) -> None:
    model = stored(platform, tmp_path, "a")
    cache = make_cache()
    assert content(cache, model) == content(make_cache(), model) == platform.objects["models/a"]
    assert downloads(platform, model) == 1
    with cache.open(model) as file:
        assert file.sha256 == hashlib.sha256(platform.objects["models/a"]).hexdigest()
        assert file.short_hash == file.sha256[:10]


def test_another_version_under_the_same_id_is_another_file(
    platform: Platform, tmp_path: Path, make_cache: MakeCache
) -> None:
    first = stored(platform, tmp_path, "a")
    cache = make_cache()
    before = content(cache, first)
    second = stored(platform, tmp_path, "a")
    assert second.id == first.id
    assert content(cache, second) != before


def test_a_renamed_checkpoint_is_not_fetched_again(
    platform: Platform, tmp_path: Path, make_cache: MakeCache
) -> None:
    """Its object, name and ETag are new, the hash of its content is the same."""
    first = stored(platform, tmp_path, "a")
    first = replace(first, sha256=hashlib.sha256(platform.objects["models/a"]).hexdigest())
    renamed = replace(first, name="b", id="other", etag="other", url=platform.url + "/nothing")
    cache = make_cache()
    assert content(cache, first) == content(cache, renamed)
    unhashed = replace(renamed, sha256=None)
    with pytest.raises(RequestFault, match="not in storage"):
        content(cache, unhashed)


def test_a_file_that_was_not_flushed_is_good_until_the_machine_starts_anew(
    platform: Platform, tmp_path: Path, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cache = stored(platform, tmp_path, "a"), make_cache()
    with monkeypatch.context() as patch:
        patch.setattr(FileCache, "_flush", lambda *_: None)
        content(cache, model)
    content(cache, model)
    assert downloads(platform, model) == 1
    with monkeypatch.context() as patch:
        patch.setattr(files_module, "boot_id", lambda: "another")
        patch.setattr(FileCache, "_flush", lambda *_: None)
        content(cache, model)
        assert downloads(platform, model) == 2
        cache._flush(files_module._key(model))
    cache = make_cache()
    FileCache._flush(cache, files_module._key(model))
    content(cache, model)
    assert downloads(platform, model) == 2, "what was flushed is good in every boot"


def _use(folder: str, model: ModelFile, begin: Any) -> None:
    begin.wait(180)
    with FileCache(Path(folder), 10_000_000, make_session()).open(model) as file:
        assert file.path.stat().st_size == model.size


def test_workers_that_need_a_file_at_once_download_it_once(platform: Platform, tmp_path: Path) -> None:
    model = stored(platform, tmp_path, "a", length=5_000_000)
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(3)
    whole = platform._object

    def slow(key: str) -> Any:
        time.sleep(2)
        return whole(key)

    platform._server.app.view_functions["_object"] = slow  # type: ignore[attr-defined]
    workers = [context.Process(target=_use, args=(str(tmp_path / "cache"), model, begin)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert downloads(platform, model) == 1


def test_a_broken_download_is_resumed_where_it_ended(
    platform: Platform, tmp_path: Path, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stored(platform, tmp_path, "a", length=300_000)
    monkeypatch.setattr(download_module, "CHUNK_BYTES", 10_000)
    cut = iter([100_000, 50_000])
    whole = platform._object

    def broken(key: str) -> Any:
        response = whole(key)
        if isinstance(response, Response) and (length := next(cut, 0)):
            data = response.get_data()
            response.set_data(data[:length])
            response.headers["Content-Length"] = str(len(data))
        return response

    platform._server.app.view_functions["_object"] = broken  # type: ignore[attr-defined]
    assert content(make_cache(), model) == platform.objects["models/a"]
    ranges = [wanted for key, wanted in platform.gets if key == "models/a"]
    assert ranges == ["", "bytes=100000-", "bytes=150000-"]


def test_damaged_content_is_not_kept(platform: Platform, tmp_path: Path, make_cache: MakeCache) -> None:
    model = stored(platform, tmp_path, "a", sha256="0" * 64)
    with pytest.raises(Passing, match="arrived damaged"):
        content(make_cache(), model)
    assert not list((tmp_path / "cache").glob("*.safetensors"))
    assert not list((tmp_path / "cache").glob("*.part"))
    assert not list((tmp_path / "cache").glob("*.ranges"))


@pytest.mark.parametrize(
    ("change", "fault", "sentence"),
    [
        ({"size": 900}, RequestFault, "has 1000 bytes in storage, its record says 900"),
        ({"size": 1100}, RequestFault, "has 1000 bytes in storage, its record says 1100"),
        ({"etag": "other"}, RequestFault, "was replaced in storage"),
        ({"size": 20_000_000}, RequestFault, "this worker keeps at most 0.0 GB"),
    ],
)
def test_a_file_that_is_not_what_its_record_says_fails_the_job(
    platform: Platform,
    tmp_path: Path,
    make_cache: MakeCache,
    change: Any,
    fault: type[Exception],
    sentence: str,
) -> None:
    model = stored(platform, tmp_path, "a", **change)
    with pytest.raises(fault, match=sentence):
        content(make_cache(), model)


def test_a_missing_object_fails_the_job(platform: Platform, tmp_path: Path, make_cache: MakeCache) -> None:
    model = stored(platform, tmp_path, "a")
    platform.objects.clear()
    with pytest.raises(RequestFault, match="not in storage any more"):
        content(make_cache(), model)


def test_a_full_disk_passes_the_job_on(
    platform: Platform, tmp_path: Path, make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "FREE_SPACE_KEPT", 10**18)
    with pytest.raises(Passing, match="disk is full"):
        content(make_cache(), stored(platform, tmp_path, "a"))


def test_the_file_unused_for_longest_leaves_first(
    platform: Platform, tmp_path: Path, make_cache: MakeCache
) -> None:
    a, b, c = (stored(platform, tmp_path, name) for name in "abc")
    cache = make_cache(limit=2500)
    for age, model in ((100, a), (200, b)):
        content(cache, model)
        record = tmp_path / "cache" / f"{files_module._key(model)}.json"
        for flushing in [thread for thread in threading.enumerate() if thread.name == "flush"]:
            flushing.join(60)  # until then the file is in use
        os.utime(record, (record.stat().st_mtime - age,) * 2)
    content(cache, c)
    for model in (a, c, b):
        content(cache, model)
    assert [downloads(platform, model) for model in (a, b, c)] == [1, 2, 1]
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.safetensors")) <= 2500


def _hold(folder: str, key: str, ready: Any, done: Any) -> None:
    with Path(folder, f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        ready.set()
        done.wait(20)


def test_a_file_that_another_process_uses_is_not_evicted(
    platform: Platform, tmp_path: Path, make_cache: MakeCache
) -> None:
    used, other = stored(platform, tmp_path, "used"), stored(platform, tmp_path, "other")
    cache = make_cache(limit=1500)
    content(cache, used)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    arguments = (str(tmp_path / "cache"), files_module._key(used), ready, done)
    process = context.Process(target=_hold, args=arguments)
    process.start()
    assert ready.wait(30)
    content(cache, other)
    done.set()
    process.join()
    content(cache, used)
    assert downloads(platform, used) == 1


def test_waiting_for_another_processs_download_can_be_stopped(
    platform: Platform, tmp_path: Path, make_cache: MakeCache
) -> None:
    model, cache = stored(platform, tmp_path, "a"), make_cache()

    def check() -> None:
        raise Cancelled

    with (tmp_path / "cache" / f"{files_module._key(model)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Cancelled), cache.open(model, check):
            raise AssertionError("the file is locked")


def test_names_from_outside_never_reach_the_file_system(
    platform: Platform, tmp_path: Path, make_cache: MakeCache
) -> None:
    model = replace(stored(platform, tmp_path, "a"), name="../../etc/passwd", id="/../x", etag="")
    with make_cache().open(model) as file:
        assert file.path.parent == tmp_path / "cache"
