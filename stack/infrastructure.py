"""MongoDB, Redis and S3 alone, on free ports, for the tests of services."""

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stack.ports import HOST, free_ports
from stack.program import Died, Program, wait_until_ready
from stack.stores import S3Keys, StorePorts, mongodb_url, remove_sockets, stores

PR_SET_PDEATHSIG = 1  # linux/prctl.h
BUCKET = "sdfleet-test"


@dataclass(frozen=True)
class Infrastructure:
    """Where the running parts are."""

    mongodb_url: str
    redis_url: str
    s3_endpoint_url: str
    s3_access_key: str
    s3_secret_key: str


@contextlib.contextmanager
def infrastructure(folder: Path) -> Iterator[Infrastructure]:
    """Real MongoDB (replica set of one), Redis and S3 below `folder`; they end with the block, or with us."""
    ports = StorePorts(*free_ports(len(StorePorts.names())))
    keys = S3Keys(secrets.token_hex(10), secrets.token_hex(20))
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as running:
        running.callback(remove_sockets, ports)
        programs = stores(folder, ports, keys, BUCKET)
        started = {program.name: running.enter_context(_running(program, folder)) for program in programs}

        def check_alive(program: Program) -> None:
            if started[program.name].poll() is not None:
                raise Died

        wait_until_ready(programs, partial(_log, folder), check_alive)
        yield Infrastructure(
            mongodb_url=mongodb_url(ports.mongodb),
            redis_url=f"redis://{HOST}:{ports.redis}/0",
            s3_endpoint_url=f"http://{HOST}:{ports.s3}",
            s3_access_key=keys.access_key,
            s3_secret_key=keys.secret_key,
        )


@contextlib.contextmanager
def _running(program: Program, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with _log(folder, program).open("wb") as output:
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | program.environment,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        process.kill()  # the data of a test is thrown away
        process.wait()


def _log(folder: Path, program: Program) -> Path:
    return folder / f"{program.name}.log"


def die_with_parent() -> None:
    """In the child: be killed when the test process ends in whatever way."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
