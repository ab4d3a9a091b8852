"""Runs the program that converts a pickle, where it reaches no network and nothing of this process.

The program is gpu_worker/convert_pickle.py, which needs PyTorch. It runs in the container without network
that listens at CHECKPOINTS_CONVERTER (gpu_worker/convert_server.py); where none is configured, in a process
here that `unshare` cuts off from the network. Where neither can be had, pickles are refused.
"""

import contextlib
import functools
import importlib.util
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import services

log = logging.getLogger(__name__)

PROGRAM = Path(services.__file__).parent.parent / "gpu_worker" / "convert_pickle.py"
WITHOUT_NETWORK = (("unshare", "-rn", "--"), ("unshare", "-n", "--"))  # the second: for root alone
SECONDS, SECONDS_PER_GB = 240, 240  # of wall clock; the program bounds its own CPU time more closely
CONNECT_SECONDS = 60.0  # a converter may be starting
ANSWER_SECONDS = 30.0  # beyond those of the conversion
ANSWER_BYTES = 65_536
SIGNALS = {
    signal.SIGXCPU: "it takes too long",
    signal.SIGXFSZ: "it grows too large",
    signal.SIGKILL: "it takes too much memory or time",
}
TRY_YOURSELF = "convert it to safetensors first"


class NotConvertible(Exception):
    """A pickle cannot be converted; the text is a sentence."""


@functools.cache
def network_cut() -> tuple[str, ...] | None:
    """What a command begins with to have no network; None where that cannot be had."""
    for prefix in WITHOUT_NETWORK:
        try:
            subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            continue
        return prefix
    return None


def run(name: str, size: int, source: IO[bytes], target: IO[bytes], converter: str = "") -> None:
    """Convert `source`, a file of `size` bytes that clients know as `name`. Raises NotConvertible.

    `converter` is the socket of the container that does it; without one it is done here.
    """
    why_not = f"{name} cannot be converted to safetensors"
    seconds = SECONDS + SECONDS_PER_GB * size / 1e9
    try:
        if converter:
            status, said = _run_there(converter, name, seconds, source, target)
        else:
            status, said = _run_here(name, seconds, source, target)
    except _Refused as reason:
        raise NotConvertible(f"{why_not} {reason}: {TRY_YOURSELF}") from None
    if status:
        raise NotConvertible(_sentence(said) or f"{why_not}: {_end(status, said)}")


class _Refused(Exception):
    """It is not even tried; the text ends the sentence."""


def _run_here(name: str, seconds: float, source: IO[bytes], target: IO[bytes]) -> tuple[int, str]:
    if importlib.util.find_spec("torch") is None or not PROGRAM.is_file():  # found, never imported
        raise _Refused("on this server, which has no PyTorch")
    prefix = network_cut()
    if prefix is None:
        raise _Refused("safely: this server cannot start a process without network")
    files = [source.fileno(), target.fileno()]
    try:
        done = subprocess.run(
            [*prefix, sys.executable, "-I", str(PROGRAM), *(f"/dev/fd/{file}" for file in files), name],
            env={"PATH": os.defpath},  # for unshare to be found; the program itself is named in full
            pass_fds=files,
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -signal.SIGXCPU, ""
    return done.returncode, (done.stdout or done.stderr[-1000:]).decode(errors="replace")


def _run_there(
    converter: str, name: str, seconds: float, source: IO[bytes], target: IO[bytes]
) -> tuple[int, str]:
    question = json.dumps({"name": name, "seconds": seconds}).encode()
    with _connected(converter) as connection:
        connection.settimeout(seconds + ANSWER_SECONDS)
        try:
            socket.send_fds(connection, [question], [source.fileno(), target.fileno()])
            answer = json.loads(connection.recv(ANSWER_BYTES))
            return int(answer["status"]), str(answer["said"])
        except (OSError, ValueError, KeyError, TypeError):  # it ended in the middle of its work
            return -signal.SIGKILL, ""


def _connected(converter: str) -> socket.socket:
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.suppress(OSError):
            connection.connect(converter)
            return connection
        connection.close()
        if time.monotonic() > deadline:
            log.error("the converter does not answer", extra={"socket": converter})
            raise _Refused("on this server, whose converter does not answer")
        time.sleep(0.2)


def _sentence(said: str) -> str | None:
    """The sentence that the program wrote."""
    try:
        answer: Any = json.loads(said)
        return str(answer["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _end(status: int, said: str) -> str:
    known = next((reason for number, reason in SIGNALS.items() if status in {-number, 128 + number}), None)
    if known is None:
        last = said.strip().splitlines()[-1:]
        log.error("the conversion program failed", extra={"status": status, "said": last})
    return known or "the program that converts it failed"
