"""Processes that are killed in the middle of an import: it goes on, or fails cleanly, and nothing leaks."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest

from services.checkpoints import tasks
from services.checkpoints.checkpoint import IMPORTING, VERIFYING
from stack.infrastructure import Infrastructure
from tests.checkpoints.conftest import Service, pickled, safetensors, unique
from tests.checkpoints.faults import MIB, Halting, Platform, running_platform, wait_until
from tests.checkpoints.source import Source, running_source

CONTENT = safetensors(26 * MIB)


def kill_tree(pid: int) -> None:
    """Kill a process and its children at once, as a machine that loses its power does."""
    process = psutil.Process(pid)
    for one in [process, *process.children(recursive=True)]:
        one.send_signal(signal.SIGKILL)


# The fast variant: a Celery worker of this service alone.


@pytest.fixture()
def source() -> Iterator[Source]:
    with running_source() as running:
        yield running


def celery(service: Service) -> "subprocess.Popen[bytes]":
    command = (
        *(sys.executable, "-m", "celery", "-A", "services.checkpoints.tasks", "worker", "-Q", "checkpoints"),
        *("--pool=solo", "--without-mingle", "--without-gossip", "--loglevel=WARNING"),
    )
    return subprocess.Popen(command, env=os.environ | service.environ)


def test_the_import_of_a_killed_celery_worker_goes_on_in_the_next_and_nothing_leaks(
    start_service: Callable[..., Service],
    parts: Infrastructure,
    source: Source,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", parts.redis_url)
    service, halting = start_service(CHECKPOINTS_IMPORT_ALLOW=source.host), Halting(18 * MIB)
    storage = service.parts.storage
    url = source.add(CONTENT, how=halting)
    first = celery(service)
    body = {"checkpoint_type": "Lora", "urls": [url]}
    checkpoint_id = service.call("POST", "/checkpoints", body).json["data"]["checkpoint"]["id"]
    assert halting.reached.wait(60)
    folder = f"Lora/checkpoint/custom/{checkpoint_id}/"
    wait_until(lambda: any(storage.parts(*one) for one in storage.open_uploads(folder)))
    kill_tree(first.pid)
    first.wait()
    halting.go_on.set()
    second = celery(service)
    try:
        # once the dead worker's lease is over
        wait_until(lambda: checkpoint_id in service.parts.repository.unfinished_work([IMPORTING]))
        tasks.go_on.apply_async()
        wait_until(lambda: service.status(checkpoint_id) == "Active")
    finally:
        kill_tree(second.pid)
        second.wait()
    assert any(
        asked and asked != "bytes=0-" for asked in source.ranges["/" + url.split("/")[3].split("?")[0]]
    )
    assert storage.open_uploads("") == []
    (key,) = [key for key in storage.objects.keys_under("") if checkpoint_id in key]
    assert storage.objects.read(key, 10**9) == CONTENT


def converting(pid: int) -> bool:
    """Whether a process of this worker converts a pickle now."""
    children = psutil.Process(pid).children(recursive=True)
    return any("convert_pickle.py" in " ".join(child.cmdline()) for child in children)


def test_the_conversion_of_a_killed_celery_worker_is_done_again_by_the_next(
    start_service: Callable[..., Service], parts: Infrastructure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", parts.redis_url)
    service = start_service()
    storage = service.parts.storage
    first = celery(service)
    uploaded = service.upload(pickled((1.5, 2.5), "emb_params"), name=unique("old", ".ckpt"))
    assert service.complete(uploaded).status_code == 202
    wait_until(lambda: converting(first.pid))
    kill_tree(first.pid)
    first.wait()
    second = celery(service)
    try:
        wait_until(lambda: uploaded.id in service.parts.repository.unfinished_work([VERIFYING]))
        tasks.go_on.apply_async()
        wait_until(lambda: service.status(uploaded.id) == "Active")
    finally:
        kill_tree(second.pid)
        second.wait()
    (key,) = [key for key in storage.objects.keys_under("") if uploaded.id in key]
    assert key.endswith(".safetensors")
    assert storage.open_uploads(key.rpartition("/")[0]) == []


# The whole stack: kill what supervisord starts again.


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["checkpoints-tasks", "s3", "mongodb", "redis", "checkpoints"])
def test_whatever_is_killed_in_the_middle_of_an_import_nothing_leaks(platform: Platform, victim: str) -> None:
    before = platform.held()
    halting = Halting(18 * MIB)
    checkpoint_id = platform.begin_import(platform.source.add(CONTENT, how=halting))
    assert halting.reached.wait(60)
    wait_until(lambda: len(platform.held()[1]) > len(before[1]))
    kill_tree(platform.stack.pid(victim))
    threading.Timer(1.0, halting.go_on.set).start()
    checkpoint = platform.settled(checkpoint_id)
    keys, uploads = platform.held()
    assert uploads == before[1]
    new = set(keys) - set(before[0])
    if checkpoint["status"] == "Active":
        assert new == {f"Lora/checkpoint/custom/{checkpoint_id}/{checkpoint['name'][0]}"}
        (key,) = new
        assert platform.store.read(key, 10**9) == CONTENT
    else:
        assert new == set(), checkpoint["params"]["error"]
    platform.client.call("DELETE", "/checkpoints", {"checkpoint_id_list": [checkpoint_id]})
    wait_until(lambda: platform.held() == before)


@pytest.mark.slow
def test_an_import_that_is_deleted_while_its_worker_is_dead_leaves_nothing(platform: Platform) -> None:
    before = platform.held()
    halting = Halting(18 * MIB)
    checkpoint_id = platform.begin_import(platform.source.add(CONTENT, how=halting))
    assert halting.reached.wait(60)
    wait_until(lambda: len(platform.held()[1]) > len(before[1]))
    platform.stack.stop("checkpoints-tasks")
    platform.client.call("DELETE", "/checkpoints", {"checkpoint_id_list": [checkpoint_id]})
    halting.go_on.set()
    platform.stack.start("checkpoints-tasks")
    wait_until(lambda: platform.held() == before, 90)
