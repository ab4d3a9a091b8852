"""A WSGI application whose answers wait until a file is there."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    if environ["PATH_INFO"] == "/wait":
        Path(os.environ["WAITING_FILE"]).touch()
        while not Path(os.environ["GO_ON_FILE"]).exists():
            time.sleep(0.02)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
