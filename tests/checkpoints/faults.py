"""A stack whose parts can be killed, a source that waits in the middle, and what S3 holds."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.common.s3 import ObjectStore
from services.common.settings import S3Settings
from stack.demo.client import Client, DemoFailed
from stack.secrets import load_or_make
from stack.settings import BUCKET, Settings
from stack.stack import Stack
from tests.checkpoints.source import Handler, Source, plain, running_source

MIB = 2**20
FAST = {"CHECKPOINTS_LEASE_SECONDS": "3"}


@dataclass
class Halting:
    """Serves a file up to a place, and the rest when it is let go."""

    most: int
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __call__(self, handler: Handler, content: bytes) -> None:
        if handler.headers.get("Range") or self.go_on.is_set():
            self.go_on.wait(60)
            plain(handler, content)
            return
        handler.start(200, Content_Length=len(content), ETag='"v1"')
        handler.wfile.write(content[: self.most])
        self.reached.set()
        self.go_on.wait(60)
        handler.wfile.write(content[self.most :])


@dataclass(frozen=True)
class Platform:
    """A running stack without GPU workers, its administrator, and a source that it may import from."""

    stack: Stack
    client: Client
    source: Source
    store: ObjectStore

    def held(self) -> tuple[list[str], list[str]]:
        """Every object's key and every unfinished upload's, of checkpoints."""
        keys = [key for key in self.store.keys_under("") if "/checkpoint/custom/" in key]
        listed = self.store.client.list_multipart_uploads(Bucket=self.store.bucket).get("Uploads", [])
        return sorted(keys), sorted(entry["Key"] for entry in listed)

    def begin_import(self, url: str) -> str:
        """The id of a new checkpoint that is imported through Celery."""
        body = {"checkpoint_type": "Lora", "urls": [url], "params": {"message": "a test"}}
        return str(self.client.call("POST", "/checkpoints", body)["checkpoint"]["id"])

    def checkpoint(self, checkpoint_id: str) -> dict[str, Any]:
        """The checkpoint as its creator sees it."""
        return dict(self.client.call("GET", f"/checkpoints/{checkpoint_id}")["checkpoint"])

    def settled(self, checkpoint_id: str, seconds: float = 120) -> dict[str, Any]:
        """The checkpoint once it is Active or has failed; outages in between are waited out."""
        seen: list[Any] = [None]

        def look() -> bool:
            try:
                seen[0] = self.checkpoint(checkpoint_id)
            except DemoFailed:
                return False
            return seen[0]["status"] == "Active" or "error" in seen[0]["params"]

        wait_until(look, seconds)
        return dict(seen[0])


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


@contextmanager
def running_platform(folder: Path, **environment: str) -> Iterator[Platform]:
    """Start a stack and a source."""
    with running_source() as source:
        allowed = {"CHECKPOINTS_IMPORT_ALLOW": source.host}
        settings = Settings.on_free_ports(0, **(FAST | allowed | environment))
        with Stack(folder, settings) as stack:
            creds = stack.creds()
            client = Client(creds.url, creds.api_key)
            client.sign_in(creds.username, creds.password)
            secrets = load_or_make(folder)
            store = ObjectStore(
                S3Settings(
                    endpoint_url=creds.s3_url,
                    bucket=BUCKET,
                    access_key=secrets.s3_access_key,
                    secret_key=secrets.s3_secret_key,
                )
            )
            yield Platform(stack, client, source, store)
