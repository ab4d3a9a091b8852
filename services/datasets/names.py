"""Which names data sets and their files may have."""

import re
from pathlib import PurePosixPath

from services.datasets.errors import UnusableName

LONGEST_FILE_NAME = 200
DATASET_NAME = re.compile(r"[^\W_][\w. -]{0,99}")
FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
CAPTION_ENDING = ".txt"


def check_dataset_name(name: str) -> None:
    """Raise UnusableName unless it is safe in keys and URLs."""
    if not DATASET_NAME.fullmatch(name) or name.endswith((" ", ".")):
        raise UnusableName(
            f'dataset_name "{name[:60]}" must have 1 to 100 letters, digits, spaces, "_", "-" and ".", '
            "begin with a letter or digit and not end with a space or a dot"
        )


def check_path(path: str, field: str) -> None:
    """Raise UnusableName unless it is a relative path of plain parts."""
    parts = path.split("/")
    if len(path) > LONGEST_FILE_NAME:
        raise UnusableName(f"{field} has {len(path)} characters, at most {LONGEST_FILE_NAME} are possible")
    if FORBIDDEN.search(path) or any(part in {"", ".", ".."} for part in parts):
        raise UnusableName(
            f'{field} "{path[:60]}" must be a relative path without empty parts, ".", ".." and backslashes'
        )


def is_caption(filename: str) -> bool:
    """Whether the file holds the caption of a picture."""
    return filename.lower().endswith(CAPTION_ENDING)


def stem(filename: str) -> str:
    """What a picture and its caption file have in common."""
    return str(PurePosixPath(filename).with_suffix(""))


def folder(dataset: str) -> str:
    """The key prefix of a data set's objects, with the last slash."""
    return f"dataset/{dataset}/"


def key_of(dataset: str, prefix: str, filename: str) -> str:
    """The key of a file."""
    return folder(dataset) + (f"{prefix}/" if prefix else "") + filename
