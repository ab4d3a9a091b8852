"""Converts pickles for another container: `python -I gpu_worker/convert_server.py SOCKET`, without network.

Listens on a Unix socket. A connection is one conversion: a JSON object `{"name": …, "seconds": …}` with two
open files, the pickle and what the safetensors file is written to. convert_pickle.py converts it in a process
of its own; the answer is `{"status": exit status, "said": what it wrote}`. Whoever hangs up ends the process.
It imports nothing of sdfleet, and does nothing where there is a network.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("convert_pickle.py")
LOOK_SECONDS = 0.1
MESSAGE_BYTES = 65_536
LOOPBACK = "lo"
SIOCGIFFLAGS, IFF_UP = 0x8913, 1  # linux/sockios.h, net/if.h


def networks() -> list[str]:
    """The network interfaces that are up, other than the loopback; kernels add tunnels that are down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:

        def is_up(name: str) -> bool:
            answer = fcntl.ioctl(asking, SIOCGIFFLAGS, struct.pack("16sH14x", name.encode(), 0))
            return bool(struct.unpack("16sH14x", answer)[1] & IFF_UP)

        return sorted(name for _, name in socket.if_nameindex() if name != LOOPBACK and is_up(name))


def main(path: str) -> None:
    """Serve until the process is ended."""
    if found := networks():
        sys.exit(f"the converter must have no network, here is {', '.join(found)}: use network_mode: none")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as a container's first process it has no default
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        os.umask(0o177)  # for the user alone that runs both containers
        listening.bind(path)
        listening.listen(16)
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):  # whoever asked is gone
        message, files, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 2)
        try:
            connection.send(json.dumps(_answer(connection, message, files)).encode())
        finally:
            for file in files:
                os.close(file)


def _answer(connection: socket.socket, message: bytes, files: list[int]) -> dict[str, Any]:
    try:
        asked = json.loads(message)
        name, seconds = str(asked["name"]), float(asked["seconds"])
    except (ValueError, KeyError, TypeError):
        return {"status": 2, "said": "the question is not understood"}
    if len(files) != 2:
        return {"status": 2, "said": "two files are needed"}
    if found := networks():
        return {"status": 2, "said": f"the converter has a network ({', '.join(found)})"}
    return _converted(connection, name, files, seconds)


def _converted(connection: socket.socket, name: str, files: list[int], seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-I", str(PROGRAM), *(f"/dev/fd/{file}" for file in files), name]
    process = subprocess.Popen(
        command,
        env={},
        pass_fds=files,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + seconds
    with process:
        while process.poll() is None:
            if time.monotonic() > deadline or _has_hung_up(connection):
                process.kill()
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
        late = time.monotonic() > deadline
        said = process.stdout.read(MESSAGE_BYTES // 2) if process.stdout else b""
    status = -signal.SIGXCPU if late and process.returncode else process.returncode
    return {"status": status, "said": said.decode(errors="replace")}


def _has_hung_up(connection: socket.socket) -> bool:
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


if __name__ == "__main__":
    main(sys.argv[1])
