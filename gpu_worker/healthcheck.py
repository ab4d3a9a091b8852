"""Ends with 0 while the container's process works: its heartbeats are taken, or (`serve`) /ping says so."""

import http.client
import os
import sys
import time

ALIVE_FILE = "/tmp/alive"  # noqa: S108 - entrypoint.sh names it
STALE_SECONDS = 60


def healthy() -> bool:
    """Whether a heartbeat was taken lately, or SageMaker's front takes jobs."""
    try:
        return time.time() - os.stat(ALIVE_FILE).st_mtime < STALE_SECONDS  # noqa: PTH116 - starts faster
    except FileNotFoundError:
        return _ready()


def _ready() -> bool:
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT") or 8080)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not healthy())
