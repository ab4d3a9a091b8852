"""Which file names a checkpoint may have."""

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from services.checkpoints.errors import UnusableFileName

SUFFIX = ".safetensors"
ARCHIVE = ".tar"  # of one weight file
# Pickles of tensors, as PyTorch writes them.
CONVERTIBLE = frozenset({".ckpt", ".pt", ".pth", ".bin", ARCHIVE})
PICKLES = CONVERTIBLE | {".pkl", ".pickle"}
LONGEST_NAME = 255  # bytes, what file systems take: workers keep the files under their names
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def check_name(name: str, pickles: bool = False) -> None:
    """Raise UnusableFileName, with a sentence, for a name that cannot be used.

    With `pickles` it may also be the name of a file that is going to be converted.
    """
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
    if not (pickles and is_pickle(name)):
        _check_suffix(name, shown)
    elif len(final_name(name).encode()) > LONGEST_NAME:
        raise UnusableFileName(f"{shown} is too long for a file name with the ending {SUFFIX}")


def _check_suffix(name: str, shown: str) -> None:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PICKLES:
        raise UnusableFileName(
            f"{shown} is a {suffix} file, which can run code when it is loaded: "
            "convert it to safetensors first"
        )
    if suffix != SUFFIX or name == SUFFIX:
        raise UnusableFileName(f"{shown} must be the name of a {SUFFIX} file")


def is_pickle(name: str) -> bool:
    """Whether the file of this name is converted before it can be used."""
    path = PurePosixPath(name)
    return path.suffix.lower() in CONVERTIBLE and path.stem != ""


def is_archive(name: str) -> bool:
    """Whether the file of this name is unpacked before it can be used."""
    return name.lower().endswith(ARCHIVE)


def final_name(name: str) -> str:
    """The name that the file has once its checkpoint is Active."""
    return name[: -len(PurePosixPath(name).suffix)] + SUFFIX if is_pickle(name) else name


def check_names(names: Iterable[str], pickles: bool = False) -> None:
    """Check every name, and that none is there twice. Raises UnusableFileName."""
    seen: set[str] = set()
    for name in names:
        check_name(name, pickles)
        if claim_of(name) in seen:
            raise UnusableFileName(f"{name} is named twice in one request")
        seen.add(claim_of(name))


def claim_of(name: str) -> str:
    """What is unique about a name: the same word composed differently is the same name.

    A file that is converted claims the name that it is going to have.
    """
    return unicodedata.normalize("NFC", final_name(name))


def _printable(name: str) -> str:
    return name.encode("unicode_escape").decode()
