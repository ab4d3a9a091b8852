"""A WSGI application that takes its time to be made: until a file is there."""

import os
import time
from pathlib import Path

from tests.common.waiting_app import app as answer

__all__ = ["answer"]


def create_app():
    Path(os.environ["WAITING_FILE"]).touch()
    while not Path(os.environ["GO_ON_FILE"]).exists():
        time.sleep(0.02)
    return answer
