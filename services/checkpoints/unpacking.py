"""Takes the one weight file out of a tar archive, within bounds; nothing is extracted by its own name."""

import tarfile
from pathlib import PurePosixPath
from typing import IO

WEIGHTS = frozenset({".safetensors", ".ckpt", ".pt", ".pth", ".bin"})
MOST_MEMBERS = 1000
LARGEST_GROWTH = 4  # weights hardly shrink when they are compressed: more is a bomb
COPY_BYTES = 2**20


class NotUnpackable(Exception):
    """The archive cannot be used; the text ends the sentence that begins with its name."""


def unpack(source: IO[bytes], size: int, target: IO[bytes]) -> str:
    """Copy the archive's weight file to `target`; its ending. Raises NotUnpackable.

    `size` is the archive's. Other regular files are ignored; links and devices are refused.
    """
    most = LARGEST_GROWTH * size + 2**20
    try:
        with tarfile.open(fileobj=source, mode="r:*") as archive:
            member = _weight_file(archive, most)
            content = archive.extractfile(member)
            if content is None:
                raise NotUnpackable(f"{_shown(member)} in it is no plain file")
            _copy(content, member.size, target)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise NotUnpackable("it is not a whole tar archive") from error
    return PurePosixPath(member.name).suffix.lower()


def _weight_file(archive: tarfile.TarFile, most: int) -> tarfile.TarInfo:
    found: list[tarfile.TarInfo] = []
    total = 0
    for number, member in enumerate(archive, 1):
        total += member.size
        if number > MOST_MEMBERS:
            raise NotUnpackable(f"it has more than {MOST_MEMBERS} members")
        if total > most:
            raise NotUnpackable(f"its members have more than {most} bytes")
        if member.isdir():
            continue
        if not member.isreg() or member.sparse is not None:
            raise NotUnpackable(f"{_shown(member)} in it is no plain file")
        name = PurePosixPath(member.name)
        if name.suffix.lower() in WEIGHTS and not name.name.startswith("."):
            found.append(member)
    if len(found) != 1:
        raise NotUnpackable(f"it has {len(found) or 'no'} weight files, one is needed ({_endings()})")
    return found[0]


def _copy(content: IO[bytes], size: int, target: IO[bytes]) -> None:
    copied = 0
    while piece := content.read(COPY_BYTES):
        target.write(piece)
        copied += len(piece)
    if copied != size:
        raise NotUnpackable("it ends early")
    target.flush()


def _endings() -> str:
    return ", ".join(sorted(WEIGHTS))


def _shown(member: tarfile.TarInfo) -> str:
    return ascii(member.name[:60])
