"""Makes safetensors files of pickles; this process itself never unpickles (see sandbox.py)."""

import hashlib
import logging
import os
import shutil
import tempfile
from dataclasses import replace
from typing import IO

from services.checkpoints.checkpoint import Checkpoint, File
from services.checkpoints.filenames import SUFFIX, final_name, is_archive, is_pickle
from services.checkpoints.inspection import read_description
from services.checkpoints.safetensors_header import InvalidHeader
from services.checkpoints.sandbox import TRY_YOURSELF, NotConvertible, run
from services.checkpoints.storage import CheckpointStorage, key_of
from services.checkpoints.unpacking import NotUnpackable, unpack

log = logging.getLogger(__name__)

PART_BYTES = 16 * 2**20
MOST_PARTS = 9_000
FREE_BYTES_KEPT = 500 * 10**6


class Conversion:
    """Makes a .safetensors object of an object that is a pickle."""

    def __init__(self, storage: CheckpointStorage, folder: str = "", converter: str = "") -> None:
        self._storage = storage
        self._folder = folder or None
        self._converter = converter

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
            if is_archive(file.name):
                self._unpacked(file.name, size, source, target)
            else:
                run(file.name, size, source, target, self._converter)
            made = self._keep(checkpoint, file, target)
        log.info("file was converted", extra={"checkpoint_id": checkpoint.id, "bytes": made.size})
        return made

    def _unpacked(self, name: str, size: int, source: IO[bytes], target: IO[bytes]) -> None:
        """The weight file of an archive, converted when it is a pickle. Raises NotConvertible."""
        source.seek(0)
        with tempfile.TemporaryFile(dir=self._folder) as member:
            try:
                ending = unpack(source, size, member)
            except NotUnpackable as reason:
                raise NotConvertible(f"{name} cannot be unpacked: {reason}") from None
            if ending != SUFFIX:
                inner = f"{name}'s {ending} file"
                run(inner, os.fstat(member.fileno()).st_size, member, target, self._converter)
                return
            member.seek(0)
            shutil.copyfileobj(member, target, PART_BYTES)
            target.flush()

    def _check_room(self, name: str, size: int) -> None:
        free = shutil.disk_usage(self._folder or tempfile.gettempdir()).free
        needed = (3 if is_archive(name) else 2) * size
        if free < needed + FREE_BYTES_KEPT:
            raise NotConvertible(
                f"{name} cannot be converted to safetensors: that takes {needed / 1e9:.1f} GB of disk, "
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
