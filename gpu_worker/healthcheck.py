"""Ends with 0 while the container works: its heartbeats are taken, or (`serve` has none) /ping says so."""

import http.client
import os
import sys
import time

ALIVE_FILE = "/tmp/alive"  # noqa: S108 - entrypoint.sh names it


def main() -> int:
    """0 or 1. When nobody answers the exception ends it with 1, and Docker shows it."""
    try:
        return time.time() - os.stat(ALIVE_FILE).st_mtime > 60  # noqa: PTH116 - starts faster
    except FileNotFoundError:
        port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT") or 8080)
    front = http.client.HTTPConnection("127.0.0.1", port, timeout=8)
    front.request("GET", "/ping")
    return front.getresponse().status != 200


if __name__ == "__main__":
    sys.exit(main())
