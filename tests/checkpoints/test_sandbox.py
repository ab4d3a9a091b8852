"""Where pickles are converted: without network, without environment, bounded; or not at all."""

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gpu_worker import convert_server
from services.checkpoints import sandbox
from services.checkpoints.sandbox import NotConvertible
from tests.checkpoints.conftest import pickled
from tests.checkpoints.faults import wait_until
from tests.checkpoints.source import running_source

SERVER = Path(convert_server.__file__)


@contextlib.contextmanager
def converter(folder: Path, server: Path = SERVER) -> Iterator[str]:
    """The socket of a converter that runs without network, as its container does."""
    path = folder / "socket"
    command = ["unshare", "-rn", "--", sys.executable, "-I", str(server), str(path)]
    with subprocess.Popen(command, env={"SECRET": "1", "PATH": os.defpath}) as process:
        wait_until(path.exists)
        try:
            yield str(path)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, "a container that is stopped ends by itself"


@pytest.fixture(params=["a process here", "a container without network"])
def run_program(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[str], None]]:
    """Runs a program in the place of the one that converts."""
    program, copy = tmp_path / "convert_pickle.py", tmp_path / "convert_server.py"
    with contextlib.ExitStack() as stack:
        path = ""
        if request.param != "a process here":
            shutil.copy(SERVER, copy)
            path = stack.enter_context(converter(tmp_path, copy))
        monkeypatch.setattr(sandbox, "PROGRAM", program)

        def run(text: str) -> None:
            program.write_text(text)
            with (tmp_path / "source").open("w+b") as source, (tmp_path / "target").open("w+b") as target:
                sandbox.run("a.ckpt", 1, source, target, path)

        yield run


def test_the_process_has_no_network_and_no_environment(
    run_program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with running_source() as source, pytest.raises(NotConvertible, match=r"^cut off$"):
        run_program(
            "import json, os, socket, sys\n"
            "try:\n"
            f"    socket.create_connection(('127.0.0.1', {source.server_port}), 2)\n"
            "    reach = 'reached'\n"
            "except OSError:\n"
            "    reach = 'cut off'\n"
            "secrets = sorted(set(os.environ) - {'LC_CTYPE', 'PATH'})\n"
            "print(json.dumps({'error': ' '.join([reach, *secrets])}))\n"
            "sys.exit(1)\n"
        )


def test_a_process_that_never_ends_is_ended(
    run_program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)
    with pytest.raises(NotConvertible, match=r"a\.ckpt cannot be .*: it takes too long$"):
        run_program("while True: pass")


def test_a_process_that_is_killed_for_its_memory_gives_a_sentence(run_program: Callable[[str], None]) -> None:
    with pytest.raises(NotConvertible, match="it takes too much memory or time"):
        run_program("import os; os.kill(os.getpid(), 9)")


def test_a_program_that_fails_otherwise_gives_a_sentence(run_program: Callable[[str], None]) -> None:
    with pytest.raises(NotConvertible, match="the program that converts it failed"):
        run_program("raise SystemExit(7)")


def test_what_neither_a_container_nor_the_kernel_cuts_off_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container with Docker's own seccomp profile, which forbids new namespaces."""
    forbidden = tmp_path / "unshare"
    forbidden.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    forbidden.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sandbox.network_cut.cache_clear()
    try:
        with (tmp_path / "a").open("w+b") as file, pytest.raises(NotConvertible) as refused:
            sandbox.run("a.ckpt", 1, file, file)
    finally:
        sandbox.network_cut.cache_clear()
    assert str(refused.value) == (
        "a.ckpt cannot be converted to safetensors safely: this server cannot start a process without "
        "network: convert it to safetensors first"
    )


def test_without_pytorch_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "PROGRAM", tmp_path / "nothing")
    with (
        (tmp_path / "a").open("w+b") as file,
        pytest.raises(NotConvertible, match=r"which has no PyTorch: convert it to safetensors first$"),
    ):
        sandbox.run("a.ckpt", 1, file, file)


# The container


def test_a_container_without_network_converts(tmp_path: Path) -> None:
    with converter(tmp_path) as path, (tmp_path / "target").open("w+b") as target:
        source = (tmp_path / "source").open("w+b")
        source.write(pickled((1.5, 2.5)))
        source.flush()
        sandbox.run("a.ckpt", 1, source, target, path)
        with pytest.raises(NotConvertible, match=r"a\.ckpt cannot be .*: it is no PyTorch file, or damaged$"):
            sandbox.run("a.ckpt", 1, target, source, path)
        assert (tmp_path / "target").read_bytes().endswith(struct.pack("<2f", 1.5, 2.5))
        assert Path(path).stat().st_mode & 0o077 == 0, "others may not ask"


def test_a_converter_refuses_to_run_with_a_network(tmp_path: Path) -> None:
    if not convert_server.networks():
        pytest.skip("this machine itself has no network")
    command = [sys.executable, "-I", str(SERVER), str(tmp_path / "socket")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "the converter must have no network" in done.stderr
    assert not (tmp_path / "socket").exists()


def test_a_converter_survives_every_question(tmp_path: Path) -> None:
    def ask(path: str, question: bytes, *files: int) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(path)
            socket.send_fds(asking, [question], list(files))
            return str(json.loads(asking.recv(10_000))["said"])

    good = json.dumps({"name": "a.ckpt", "seconds": 1}).encode()
    with converter(tmp_path) as path, (tmp_path / "a").open("wb") as file:
        assert ask(path, b"nonsense", file.fileno()) == "the question is not understood"
        assert ask(path, b"[]") == "the question is not understood"
        assert ask(path, good) == "two files are needed"
        assert ask(path, good, file.fileno()) == "two files are needed"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(path)  # and says nothing
        assert ask(path, good) == "two files are needed"


def test_who_hangs_up_ends_the_conversion(tmp_path: Path) -> None:
    """A killed Celery worker leaves no process in the other container."""
    shutil.copy(SERVER, tmp_path / "convert_server.py")
    (tmp_path / "convert_pickle.py").write_text("import time\nwhile True: time.sleep(1)")

    def working() -> bool:
        children = psutil.Process().children(recursive=True)
        return any(str(tmp_path / "convert_pickle.py") in child.cmdline() for child in children)

    with converter(tmp_path, tmp_path / "convert_server.py") as path, (tmp_path / "a").open("w+b") as file:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(path)
            question = json.dumps({"name": "a.ckpt", "seconds": 1000}).encode()
            socket.send_fds(asking, [question], [file.fileno(), file.fileno()])
            wait_until(working)
        wait_until(lambda: not working())


def test_a_converter_that_dies_or_is_not_there_gives_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sandbox, "CONNECT_SECONDS", 0.3)
    with (tmp_path / "a").open("w+b") as file:
        with pytest.raises(NotConvertible, match="whose converter does not answer: convert it to safeten"):
            sandbox.run("a.ckpt", 1, file, file, str(tmp_path / "nothing"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dying:
            dying.bind(str(tmp_path / "dying"))
            dying.listen(1)
            pid = os.fork()
            if pid == 0:
                dying.accept()
                os._exit(0)
            with pytest.raises(NotConvertible, match="it takes too much memory or time"):
                sandbox.run("a.ckpt", 1, file, file, str(tmp_path / "dying"))
            os.waitpid(pid, 0)
