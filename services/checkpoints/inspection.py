"""What a whole file turns out to be: its checked header, its architecture, and its metadata within bounds."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from services.checkpoints.architecture import recognise
from services.checkpoints.checkpoint import Checkpoint, File
from services.checkpoints.filenames import is_pickle
from services.checkpoints.safetensors_header import Header, read_header
from services.checkpoints.storage import CheckpointStorage, Stored

LONGEST_VALUE = 500  # characters; trainers keep whole lists of tags
LARGEST_METADATA = 8_000  # characters of names and values: it is in every list of checkpoints
# Named first when there is more than is kept.
IMPORTANT = ("modelspec.", "sdfleet.", "ss_base_model", "ss_output_name", "ss_network_")
# Types that have no look of their own: nothing is said about files that no rule knows.
MANY_KINDS = frozenset({"Upscaler", "FaceRestore", "Segmentation", "Interrogator", "Annotator"})


def inspected(storage: CheckpointStorage, file: File, stored: Stored) -> File:
    """The file with what its header tells; a pickle has none before it is converted. Raises InvalidHeader."""
    if is_pickle(file.name):
        return replace(file, etag=stored.etag, size=stored.size)
    header = read_header(file.name, stored.size, functools.partial(storage.read_range, file.key))
    return replace(file, etag=stored.etag, size=stored.size, found=describe(header))


def read_description(name: str, size: int, read: Callable[[int, int], bytes]) -> dict[str, Any]:
    """What the header of a file that is not in S3 tells. Raises InvalidHeader."""
    return describe(read_header(name, size, read))


def describe(header: Header) -> dict[str, Any]:
    """`type` and `architecture` (None where no rule knows the file), and `metadata`."""
    found = recognise(header)
    return {
        "type": found.type if found else None,
        "architecture": found.architecture if found else None,
        "metadata": bounded(header.metadata),
    }


def bounded(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata that is kept: long values are cut, what is too much is left out."""
    kept: dict[str, str] = {}
    room = LARGEST_METADATA
    for name in sorted(metadata, key=lambda name: (not name.startswith(IMPORTANT), name)):
        value = metadata[name]
        value = value if len(value) <= LONGEST_VALUE else value[: LONGEST_VALUE - 1] + "…"
        if (room := room - len(name) - len(value)) < 0:
            break
        kept[name] = value
    return kept


def findings(checkpoint: Checkpoint) -> dict[str, Any]:
    """`architecture`, `metadata` and `warning` for params; of several files, maps by name."""
    described = {file.name: file.found for file in checkpoint.files if file.found}
    architectures = {name: one["architecture"] for name, one in described.items() if one["architecture"]}
    metadata = {name: one["metadata"] for name, one in described.items() if one["metadata"]}
    warnings = [
        warning for name, one in described.items() if (warning := _mismatch(checkpoint.type, name, one))
    ]
    one_file = len(checkpoint.files) == 1
    shown: dict[str, Any] = {
        "architecture": next(iter(architectures.values()), None) if one_file else architectures,
        "metadata": next(iter(metadata.values()), None) if one_file else metadata,
        "warning": "; ".join(warnings),
    }
    return {name: value for name, value in shown.items() if value}


def _mismatch(checkpoint_type: str, name: str, found: Mapping[str, Any]) -> str | None:
    if found["type"] == checkpoint_type:
        return None
    if found["type"]:
        return f"{name} looks like {found['type']} ({found['architecture']}), not {checkpoint_type}"
    return None if checkpoint_type in MANY_KINDS else f"{name} does not look like {checkpoint_type}"
