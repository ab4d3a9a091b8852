"""Which file names a checkpoint may have."""

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from services.checkpoints.errors import UnusableFileName

SUFFIX = ".safetensors"
PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle", ".tar"})
LONGEST_NAME = 255  # bytes, what file systems take: workers keep the files under their names
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def check_name(name: str) -> None:
    """Raise UnusableFileName, with a sentence, for a name that cannot be used."""
    shown = name if len(name) <= 60 else name[:57] + "..."
    if not name.strip():
        raise UnusableFileName("a file name is empty")
    if any(unicodedata.category(character) in INVISIBLE for character in name):
        raise UnusableFileName(f"{_printable(shown)} has control or invisible characters in its file name")
    if "/" in name or "\\" in name:
        raise UnusableFileName(f"{shown} has a path separator in its file name")
    if name.startswith(".") or name != name.strip():
        raise UnusableFileName(f'"{shown}" begins with a dot or has spaces around its file name')
    if len(name.encode()) > LONGEST_NAME:
        raise UnusableFileName(
            f"{shown} is too long for a file name ({len(name.encode())} bytes, maximum {LONGEST_NAME})"
        )
    _check_suffix(name, shown)


def _check_suffix(name: str, shown: str) -> None:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLES:
        raise UnusableFileName(
            f"{shown} is a {suffix} file, which can run code when it is loaded: "
            "convert it to safetensors first"
        )
    if suffix != SUFFIX or name == SUFFIX:
        raise UnusableFileName(f"{shown} must be the name of a {SUFFIX} file")


def check_names(names: Iterable[str]) -> None:
    """Check every name, and that none is there twice. Raises UnusableFileName."""
    seen: set[str] = set()
    for name in names:
        check_name(name)
        if claim_of(name) in seen:
            raise UnusableFileName(f"{name} is named twice in one request")
        seen.add(claim_of(name))


def claim_of(name: str) -> str:
    """What is unique about a name: the same word composed differently is the same name."""
    return unicodedata.normalize("NFC", name)


def _printable(name: str) -> str:
    return name.encode("unicode_escape").decode()
