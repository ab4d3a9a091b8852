"""Pictures and states from storage, and files to it in parts."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import requests

from gpu_worker.errors import Passing, RequestFault
from gpu_worker.training.lease import WorkLease
from gpu_worker.training.work import Work, WorkClient, uploaded

PART_BYTES = 32 * 2**20
TRIES = 4
TIMEOUT = (3.05, 60.0)
CHUNK_BYTES = 2**20


class Transfer:
    """The bulk data of one attempt."""

    def __init__(self, client: WorkClient, session: requests.Session, work: Work, lease: WorkLease) -> None:
        self._client = client
        self._session = session
        self._work = work
        self._lease = lease

    def fetch(self, name: str, url: str, most: int) -> bytes:
        """A small file. Raises RequestFault when it is gone, Passing when storage does not give it."""

        def read() -> bytes:
            with self._session.get(url, stream=True, timeout=TIMEOUT) as response:
                if response.status_code == 404:
                    raise RequestFault(f"{name} is no longer in storage")
                response.raise_for_status()
                content = response.raw.read(most + 1, decode_content=True)
            if len(content) > most:
                raise RequestFault(f"{name} has more than {most} bytes")
            return bytes(content)

        return self._tried(name, read)

    def fetch_to(self, name: str, url: str, path: Path) -> None:
        """A large file."""

        def read() -> None:
            with self._session.get(url, stream=True, timeout=TIMEOUT) as response:
                response.raise_for_status()
                with path.open("wb") as file:
                    for chunk in response.iter_content(CHUNK_BYTES):
                        self._lease.check_held()
                        file.write(chunk)

        self._tried(name, read)

    def send_file(self, name: str, path: Path) -> dict[str, Any]:
        """Uploads a file in parts; what `saved` and `complete_work` are told of it."""
        with path.open("rb") as file:
            return self.send(name, path.stat().st_size, _parts(file))

    def send(self, name: str, size: int, parts: Iterator[bytes | bytearray]) -> dict[str, Any]:
        """Uploads so many bytes, which come in pieces of PART_BYTES, one in memory at a time."""
        count = max(1, -(-size // PART_BYTES))
        upload_id, urls = self._lease.persist(lambda: self._client.upload_urls(self._work, name, count))
        etags = []
        for url, part in zip(urls, parts, strict=True):
            etags.append(self._put(name, url, part))
        return uploaded(name, upload_id, etags)

    def _put(self, name: str, url: str, part: bytes | bytearray) -> str:
        def put() -> str:
            response = self._session.put(url, data=memoryview(part), timeout=TIMEOUT)
            response.raise_for_status()
            return response.headers["ETag"].strip('"')

        return self._tried(name, put)

    def _tried(self, name: str, call: Callable[[], Any]) -> Any:
        for attempt in range(TRIES):
            self._lease.check_held()
            try:
                return call()
            except requests.RequestException:
                if attempt == TRIES - 1:
                    raise Passing(f"{name} could not be moved from or to storage") from None
            time.sleep(0.2 * 2**attempt)
        raise AssertionError("the last try returns or raises")


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    while True:
        part = file.read(PART_BYTES)
        if not part and file.tell():
            return
        yield part
        if not part:
            return


def sha256_of(path: Path) -> str:
    """The file's sha256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
