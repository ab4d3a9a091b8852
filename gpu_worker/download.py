"""Downloads one file by a presigned URL: streamed, hashed on the way, resumed when the connection breaks."""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import requests

from gpu_worker.errors import Passing, RequestFault
from gpu_worker.jobs import ModelFile

log = logging.getLogger(__name__)

CHUNK_BYTES = 4 * 1024 * 1024
TIMEOUT = (5.0, 30.0)
ATTEMPTS_WITHOUT_PROGRESS = 4
PAUSE_SECONDS = 0.5


class _Broken(Exception):
    """The connection ended early; the rest may be asked for."""


def download(
    session: requests.Session, model: ModelFile, part: Path, check: Callable[[], None] = lambda: None
) -> str:
    """Fetches the model's content into `part` (which may hold its beginning) and returns its sha256 in hex.

    `check` is called for every chunk and may raise to stop. Raises `Passing` when the storage does not
    deliver and `RequestFault` when what it delivers is not what the checkpoint's record says.
    """
    digest = _hash_of_existing(part, model.size)
    failures = 0
    while (have := _size_of(part)) < model.size:
        check()
        try:
            _fetch_rest(session, model, part, digest, check)
        except (_Broken, requests.RequestException) as error:
            failures = failures + 1 if _size_of(part) == have else 0
            if failures >= ATTEMPTS_WITHOUT_PROGRESS:
                raise Passing(
                    f"checkpoint {model.name} could not be downloaded: the storage does not answer"
                ) from error
            log.warning("download interrupted", extra={"checkpoint": model.id, "bytes": _size_of(part)})
            time.sleep(PAUSE_SECONDS * failures)
    return _checked_hash(model, part, digest.hexdigest())


def _size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _hash_of_existing(part: Path, size: int) -> "hashlib._Hash":
    """Hashes the beginning that an earlier attempt left; one that is too long is thrown away."""
    digest = hashlib.sha256()
    if _size_of(part) > size:
        part.unlink()
    if part.exists():
        with part.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest


def _fetch_rest(
    session: requests.Session,
    model: ModelFile,
    part: Path,
    digest: "hashlib._Hash",
    check: Callable[[], None],
) -> None:
    have = _size_of(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(model.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        _check_response(response, model, have)
        with part.open("ab") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                have += len(chunk)
                if have > model.size:
                    raise RequestFault(
                        f"checkpoint {model.name} has more bytes in storage than the {model.size} of its "
                        "record"
                    )
                file.write(chunk)
                digest.update(chunk)
                check()
            file.flush()
            os.fsync(file.fileno())
    if have < model.size:
        raise _Broken


def _check_response(response: requests.Response, model: ModelFile, have: int) -> None:
    if response.status_code == 404:
        raise RequestFault(f"checkpoint {model.name} is not in storage any more")
    if response.status_code == 403:
        raise Passing(f"checkpoint {model.name} could not be downloaded: its URL is no longer valid")
    if response.status_code != (206 if have else 200):
        raise _Broken
    etag = response.headers.get("ETag", "").strip('"')
    if etag and model.etag and etag != model.etag:
        raise RequestFault(
            f"checkpoint {model.name} was replaced in storage: its ETag is not that of its record"
        )
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and have + int(length) != model.size:
        raise RequestFault(
            f"checkpoint {model.name} has {have + int(length)} bytes in storage, its record says {model.size}"
        )


def _checked_hash(model: ModelFile, part: Path, sha256: str) -> str:
    if model.sha256 and model.sha256.lower() != sha256:
        part.unlink(missing_ok=True)
        raise Passing(f"checkpoint {model.name} arrived damaged: its sha256 is not that of its record")
    return sha256
