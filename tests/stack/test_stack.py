"""The life of a stack: its processes, their deaths, a second copy, and what is left at the end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple
from pathlib import Path

import psutil
import pytest
import redis

from stack.deaths import STACK_LOG
from stack.failures import AlreadyRunning, NotRunning, StackError
from stack.leftovers import processes_of, read_record
from stack.ports import HOST, is_free
from stack.program import Program
from stack.settings import DEFAULT_PORTS, ROOT, Settings
from stack.stack import Stack
from stack.table import Table

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


class Small(Table):
    """Redis is the only store, and workers only sleep: what is tested here is the keeping of processes."""

    def stores(self) -> list[Program]:
        return [program for program in super().stores() if program.name == "redis"]

    def others(self) -> list[Program]:
        return []

    def migrate(self) -> None:
        """There are no databases."""

    def _worker(self, number: int) -> Program:
        return Program(f"worker-{number}", SLEEPER, ready=lambda: None, stop_seconds=2)


class Broken(Small):
    """One of its processes ends at once."""

    def others(self) -> list[Program]:
        command = (sys.executable, "-c", "raise SystemExit('no luck today')")
        return [Program("unlucky", command, ready=lambda: 1 / 0, ready_seconds=20)]


class SmallStack(Stack):
    table_class = Small


class BrokenStack(Stack):
    table_class = Broken


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def command(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "stack", *words),
        env=os.environ | {"SDFLEET_FOLDER": str(folder)} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture()
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = SmallStack(tmp_path / "stack", Settings.on_free_ports())
    stack.up()
    yield stack
    stack.down()


def assert_nothing_is_left(stack: Stack, ports: Mapping[str, int]) -> None:
    assert processes_of(stack.folder) == []
    assert [port for port in ports.values() if not is_free(port)] == []


def test_a_second_copy_is_told_that_the_first_runs_and_where(stack: Stack) -> None:
    with pytest.raises(AlreadyRunning, match=stack.creds().url):
        SmallStack(stack.folder).up()
    second = command(stack.folder, "up", "--detach")
    assert second.returncode == 1
    assert f"already running: {stack.creds().url}" in second.stderr
    assert stack.supervisor.answers()


def test_creds_are_json_for_a_client(stack: Stack) -> None:
    printed = command(stack.folder, "creds")
    assert printed.returncode == 0
    creds = json.loads(printed.stdout)
    assert list(creds) == ["url", "api_key", "username", "password", "s3_url"]
    assert creds["url"] == stack.creds().url


def test_the_variables_for_a_shell_are_the_same_credentials(stack: Stack) -> None:
    printed = command(stack.folder, "env").stdout
    script = printed + 'printf "%s %s %s %s %s" "$URL" "$API_KEY" "$ADMIN" "$PASSWORD" "$S3_URL"'
    seen = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert tuple(seen.stdout.split()) == astuple(stack.creds())


def test_creds_without_a_stack_are_a_sentence(tmp_path: Path) -> None:
    printed = command(tmp_path, "creds")
    assert printed.returncode == 1
    assert printed.stderr.startswith("no stack is running in")
    assert printed.stdout == ""


def test_down_from_another_shell_leaves_no_process_and_no_open_port(stack: Stack) -> None:
    ports = stack.record().ports
    assert processes_of(stack.folder)
    assert command(stack.folder, "down").returncode == 0
    assert_nothing_is_left(stack, ports)
    with pytest.raises(NotRunning):
        stack.creds()


def test_a_process_that_dies_is_started_again_and_its_death_is_recorded(stack: Stack) -> None:
    until(lambda: stack.supervisor.state("worker-1") == "RUNNING")
    killed = stack.kill("worker-1")
    until(lambda: stack.pid("worker-1") not in (0, killed))
    log = stack.supervisor.logs / STACK_LOG
    until(lambda: log.exists() and f"worker-1 (pid {killed}) died" in log.read_text())


def test_down_ends_the_orphans_of_a_killed_supervisord(stack: Stack) -> None:
    record = stack.record()
    os.kill(record.session, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(record.session) or not stack.supervisor.answers())
    assert len(processes_of(stack.folder)) >= 2
    stack.down()
    assert_nothing_is_left(stack, record.ports)


def test_up_heals_what_a_killed_supervisord_left(stack: Stack) -> None:
    old = {process.pid for process in processes_of(stack.folder)}
    os.kill(stack.record().session, signal.SIGKILL)
    until(lambda: not stack.supervisor.answers())
    stack.up()
    assert stack.supervisor.answers()
    assert not old & {process.pid for process in processes_of(stack.folder)}


def test_a_record_from_before_a_reboot_means_nothing(stack: Stack) -> None:
    stack.down()
    stack.folder.joinpath("running.json").write_text(
        json.dumps(
            {"session": os.getsid(0), "created": 1.0, "boot": "another", "ports": DEFAULT_PORTS}
            | {"workers": 1, "environment": {}, "run": "ab", "ready": True}
        )
    )
    assert processes_of(stack.folder) == []
    stack.up()
    assert stack.supervisor.answers()


def test_workers_are_added_and_taken_away(stack: Stack) -> None:
    first = stack.pid("worker-1")
    stack.scale(3)
    assert all(stack.pid(f"worker-{number}") for number in (1, 2, 3))
    stack.scale(1)
    assert [p["name"] for p in stack.supervisor.processes()] == ["redis", "worker-1"]
    assert stack.pid("worker-1") == first


def test_a_stopped_process_stays_stopped_until_it_is_started(stack: Stack) -> None:
    stack.stop("redis")
    port = stack.record().ports["redis"]
    assert stack.pid("redis") == 0
    assert is_free(port)
    stack.start("redis")
    assert redis.Redis(HOST, port).ping()


def test_a_start_that_fails_shows_the_log_and_leaves_nothing(tmp_path: Path) -> None:
    stack = BrokenStack(tmp_path, Settings.on_free_ports())
    with pytest.raises(StackError) as failure:
        stack.up()
    assert "unlucky ended while it was starting" in str(failure.value)
    assert "no luck today" in str(failure.value)
    assert processes_of(tmp_path) == []
    assert read_record(tmp_path) is None


def test_a_port_in_use_stops_the_start_before_it_begins(tmp_path: Path) -> None:
    settings = Settings.on_free_ports()
    with (
        socket.create_server((HOST, settings.ports["s3"])),
        pytest.raises(StackError, match="SDFLEET_S3_PORT=PORT"),
    ):
        SmallStack(tmp_path, settings).up()
    assert processes_of(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"cannot be used \(Not a directory\): .* SDFLEET_FOLDER=FOLDER"):
        SmallStack(tmp_path / "file" / "stack", Settings.on_free_ports()).up()


def test_a_disk_almost_full_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10**11, 99 * 10**9, 10**9))
    with pytest.raises(StackError, match=r"only 1\.0 GB are free .* SDFLEET_FOLDER"):
        SmallStack(tmp_path, Settings.on_free_ports()).up()


def test_a_long_folder_name_is_no_problem(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    with SmallStack(folder, Settings.on_free_ports()) as stack:
        assert stack.supervisor.answers()
    assert not stack.supervisor.socket.exists()


def test_interrupting_the_start_leaves_no_process(tmp_path: Path) -> None:
    settings = Settings.on_free_ports()
    variables = {f"SDFLEET_{name.upper()}_PORT": str(port) for name, port in settings.ports.items()}
    variables |= {"SDFLEET_PORT": str(settings.ports["gateway"]), "SDFLEET_FOLDER": str(tmp_path)}
    up = subprocess.Popen(
        (sys.executable, "-m", "stack", "up"),
        env=os.environ | variables,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: read_record(tmp_path) is not None)
    up.send_signal(signal.SIGINT)
    _, said = up.communicate(timeout=60)
    assert up.returncode == 130
    assert "The stack is down." in said
    assert processes_of(tmp_path) == []
