"""Ends with 0 while the container's process works: the service is ready, the Celery process is connected."""

import http.client
import os
import sys
import time

ALIVE_FILE = "/tmp/alive"  # noqa: S108 - entrypoint.sh names it
STALE_SECONDS = 60


def healthy() -> bool:
    """Whether the Celery process told of itself lately, or the service answers that it is ready."""
    try:
        return time.time() - os.stat(ALIVE_FILE).st_mtime < STALE_SECONDS  # noqa: PTH116 - starts faster
    except FileNotFoundError:
        return _ready()


def _ready() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=8)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not healthy())
