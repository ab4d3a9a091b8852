"""The parts of a local file: where each begins, and its bytes while they are sent."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LEAST_PART_BYTES = 16 * 2**20
MOST_PARTS = 10_000  # of one upload: S3's limit
MIB = 2**20


@dataclass(frozen=True)
class Parts:
    """A file cut into parts; the same file is always cut in the same places."""

    path: Path
    size: int
    part_bytes: int

    @classmethod
    def of(cls, path: Path) -> "Parts":
        """The parts of a file as it is now."""
        size = path.stat().st_size
        needed = -(-size // MOST_PARTS)
        return cls(path, size, max(LEAST_PART_BYTES, -(-needed // MIB) * MIB))

    @property
    def count(self) -> int:
        """How many parts there are."""
        return max(1, -(-self.size // self.part_bytes))

    def length(self, number: int) -> int:
        """The bytes of part `number`, which begins at 1."""
        return min(self.part_bytes, self.size - (number - 1) * self.part_bytes)

    def open(self, number: int, told: Callable[[int], None]) -> "PartFile":
        """A part as a file to send; `told` hears of every byte that was read."""
        return PartFile(self.path, (number - 1) * self.part_bytes, self.length(number), told)

    def is_stored(self, number: int, size: int, etag: str) -> bool:
        """Whether S3 holds this part as it is in the file: by its MD5, which S3 gives as its ETag."""
        return size == self.length(number) and self.md5(number) == etag.strip('"')

    def md5(self, number: int) -> str:
        """The MD5 of a part in hexadecimal digits."""
        digest = hashlib.md5(usedforsecurity=False)
        with self.open(number, lambda _: None) as part:
            while piece := part.read(MIB):
                digest.update(piece)
        return digest.hexdigest()


class PartFile(io.RawIOBase):
    """A window of a file; requests streams it, so that memory holds a piece at a time."""

    def __init__(self, path: Path, start: int, length: int, told: Callable[[int], None]) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._file.seek(start)
        self._length = self._left = length
        self._told = told

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes of what is left of the part."""
        wanted = self._left if size < 0 else min(size, self._left)
        piece = self._file.read(wanted)
        self._left -= len(piece)
        self._told(len(piece))
        return piece

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
