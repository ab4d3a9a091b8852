"""Converts pickles to safetensors, in a process without network, environment or much memory of its own.

Services never unpickle: the program is gpu_worker/convert_pickle.py, which needs PyTorch. Where there is
none, or where a process cannot be cut off from the network, such files are refused.
"""

import functools
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import services
from services.checkpoints.checkpoint import Checkpoint, File
from services.checkpoints.filenames import final_name, is_pickle
from services.checkpoints.inspection import read_description
from services.checkpoints.safetensors_header import InvalidHeader
from services.checkpoints.storage import CheckpointStorage, key_of

log = logging.getLogger(__name__)

PROGRAM = Path(services.__file__).parent.parent / "gpu_worker" / "convert_pickle.py"
WITHOUT_NETWORK = (("unshare", "-rn", "--"), ("unshare", "-n", "--"))  # the second: for root alone
SECONDS, SECONDS_PER_GB = 240, 240  # of wall clock; the program bounds its own CPU time more closely
PART_BYTES = 16 * 2**20
MOST_PARTS = 9_000
FREE_BYTES_KEPT = 500 * 10**6
SIGNALS = {
    signal.SIGXCPU: "it takes too long",
    signal.SIGXFSZ: "it grows too large",
    signal.SIGKILL: "it takes too much memory or time",
}
TRY_YOURSELF = "convert it to safetensors first"


class NotConvertible(Exception):
    """A pickle cannot be converted; the text is a sentence."""


@functools.cache
def network_cut() -> tuple[str, ...] | None:
    """What a command begins with to have no network; None where that cannot be had."""
    for prefix in WITHOUT_NETWORK:
        try:
            subprocess.run([*prefix, "true"], check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            continue
        return prefix
    return None


class Conversion:
    """Makes a .safetensors object of an object that is a pickle."""

    def __init__(self, storage: CheckpointStorage, folder: str = "") -> None:
        self._storage = storage
        self._folder = folder or None

    def convert(self, checkpoint: Checkpoint, file: File) -> File:
        """The file, converted when it is a pickle; may be repeated after any death. Raises NotConvertible."""
        return self._converted(checkpoint, file) if is_pickle(file.name) else file

    def discard(self, checkpoint: Checkpoint) -> None:
        """Remove what was made of the checkpoint's pickles."""
        for file in checkpoint.files:
            if is_pickle(file.name):
                self._storage.abort_uploads(self._key(checkpoint, file))
                self._storage.delete_object(self._key(checkpoint, file))

    def _key(self, checkpoint: Checkpoint, file: File) -> str:
        return key_of(checkpoint.type, checkpoint.id, final_name(file.name))

    def _converted(self, checkpoint: Checkpoint, file: File) -> File:
        size = file.size or 0
        self._check_room(file.name, size)
        # The files have no name: the kernel frees them when this process ends, in whatever way.
        with (
            tempfile.TemporaryFile(dir=self._folder) as source,
            tempfile.TemporaryFile(dir=self._folder) as target,
        ):
            for chunk in self._storage.stream(file.key, file.etag or ""):
                source.write(chunk)
            source.flush()
            run(file.name, size, source, target)
            made = self._keep(checkpoint, file, target)
        log.info("file was converted", extra={"checkpoint_id": checkpoint.id, "bytes": made.size})
        return made

    def _check_room(self, name: str, size: int) -> None:
        free = shutil.disk_usage(self._folder or tempfile.gettempdir()).free
        if free < 2 * size + FREE_BYTES_KEPT:
            raise NotConvertible(
                f"{name} cannot be converted to safetensors: that takes {2 * size / 1e9:.1f} GB of disk, "
                f"{free / 1e9:.1f} GB are free: {TRY_YOURSELF}"
            )

    def _keep(self, checkpoint: Checkpoint, file: File, target: IO[bytes]) -> File:
        """Check what was made, and store it under the name that the checkpoint is going to have."""
        size = os.fstat(target.fileno()).st_size
        name, key = final_name(file.name), self._key(checkpoint, file)
        try:
            found = read_description(
                name, size, lambda start, length: os.pread(target.fileno(), length, start)
            )
        except InvalidHeader as fault:
            raise NotConvertible(f"{file.name} was not converted well: {fault}") from None
        digest = hashlib.sha256()
        upload_id, part_bytes = self._storage.begin_upload(key), max(PART_BYTES, -(-size // MOST_PARTS))
        target.seek(0)
        etags: dict[int, str] = {}
        while piece := target.read(part_bytes):
            digest.update(piece)
            etags[len(etags) + 1] = self._storage.put_part(key, upload_id, len(etags) + 1, piece)
        self._storage.complete_upload(key, upload_id, etags)
        stored = self._storage.find(key)
        if stored is None or stored.size != size:
            raise NotConvertible(f"{name} is not in S3 after its conversion")
        return replace(
            file,
            name=name,
            key=key,
            upload_id=None,
            size=size,
            etag=stored.etag,
            sha256=digest.hexdigest(),
            found=found,
        )


def run(name: str, size: int, source: IO[bytes], target: IO[bytes]) -> None:
    """Convert `source`, a file of `size` bytes that clients know as `name`. Raises NotConvertible."""
    why_not = f"{name} cannot be converted to safetensors"
    if importlib.util.find_spec("torch") is None or not PROGRAM.is_file():  # found, never imported
        raise NotConvertible(f"{why_not} on this server, which has no PyTorch: {TRY_YOURSELF}")
    prefix = network_cut()
    if prefix is None:
        raise NotConvertible(
            f"{why_not} safely: this server cannot start a process without network: {TRY_YOURSELF}"
        )
    paths = [f"/dev/fd/{file.fileno()}" for file in (source, target)]
    command = [*prefix, sys.executable, "-I", str(PROGRAM), *paths, name]
    try:
        done = subprocess.run(
            command,
            env={"PATH": os.defpath},  # for unshare to be found; the program itself is named in full
            pass_fds=(source.fileno(), target.fileno()),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS + SECONDS_PER_GB * size / 1e9,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotConvertible(f"{why_not}: it takes too long") from None
    if done.returncode:
        raise NotConvertible(_reason(done) or f"{why_not}: {_end(done)}")


def _reason(done: "subprocess.CompletedProcess[bytes]") -> str | None:
    """The sentence that the program wrote."""
    try:
        answer: Any = json.loads(done.stdout)
        return str(answer["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _end(done: "subprocess.CompletedProcess[bytes]") -> str:
    status = done.returncode
    known = next((reason for number, reason in SIGNALS.items() if status in {-number, 128 + number}), None)
    if known is None:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        log.error("the conversion program failed", extra={"status": status, "said": said})
    return known or "the program that converts it failed"
