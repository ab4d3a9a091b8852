"""Reads and checks the header of a .safetensors file without reading the file.

The format: https://github.com/huggingface/safetensors#format. Eight bytes (little-endian) give the length of
a JSON header that maps each tensor's name to its dtype, shape and data_offsets; the tensors' bytes fill the
rest without gaps or overlaps.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

LENGTH_BYTES = 8
LARGEST_HEADER = 10 * 2**20  # bytes; SDXL has 0.3 MB. Parsed JSON takes about ten times its length in memory
MOST_DIMENSIONS = 32
LARGEST_NUMBER = 2**63 - 1

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
}
KNOWN_BEGINNINGS = {
    b"PK\x03\x04": "a zip archive (a .ckpt or .pt file of PyTorch is one)",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive",
    b"<!DO": "a web page",
    b"<htm": "a web page",
    b"version ": "a Git LFS pointer",
}


class InvalidHeader(Exception):
    """The file is no valid .safetensors file; the text says why, with the numbers."""


@dataclass(frozen=True)
class Header:
    """A checked header."""

    tensors: dict[str, dict[str, Any]]
    metadata: dict[str, str]


def read_header(name: str, size: int, read: Callable[[int, int], bytes]) -> Header:
    """The checked header of the file `name` of `size` bytes.

    `read(start, length)` gives bytes of the file; it is asked for the length and for the header alone.
    Raises InvalidHeader.
    """
    if size <= LENGTH_BYTES:
        raise InvalidHeader(f"{name} is not a safetensors file: it holds {size} bytes")
    beginning = read(0, LENGTH_BYTES)
    length = int.from_bytes(beginning, "little")
    if length > min(LARGEST_HEADER, size - LENGTH_BYTES) or length < 2:
        raise InvalidHeader(f"{name} is not a safetensors file: {_why_length(beginning, length, size)}")
    content = _parse(name, read(LENGTH_BYTES, length))
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidHeader(f"{name} is not a safetensors file: its __metadata__ is not a map of strings")
    _check_layout(name, content, size - LENGTH_BYTES - length)
    return Header(tensors=content, metadata=metadata)


def _why_length(beginning: bytes, length: int, size: int) -> str:
    for known, what in KNOWN_BEGINNINGS.items():
        if beginning.startswith(known):
            return f"it is {what}"
    claims = f"its first 8 bytes claim a header of {length} bytes"
    if length < 2:
        return f"{claims}, the shortest has 2"
    if length > size - LENGTH_BYTES:
        return f"{claims}, the file has {size}"
    return f"{claims}, more than {LARGEST_HEADER} are not read"


def _parse(name: str, text: bytes) -> dict[str, Any]:
    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise InvalidHeader(f"{name} is not a safetensors file: its header names a tensor twice")
        return made

    if not text.startswith(b"{"):
        raise InvalidHeader(f"{name} is not a safetensors file: its header does not begin with {{")
    try:
        content = json.loads(text.decode(), object_pairs_hook=without_repeats)
    except (ValueError, RecursionError):
        raise InvalidHeader(f"{name} is not a safetensors file: its header is not JSON") from None
    if not isinstance(content, dict):
        raise InvalidHeader(f"{name} is not a safetensors file: its header is not a JSON object")
    return content


def _check_layout(name: str, tensors: dict[str, Any], data_bytes: int) -> None:
    if not tensors:
        raise InvalidHeader(f"{name} holds no tensors")
    spans = sorted((_check_tensor(name, tensor, entry), tensor) for tensor, entry in tensors.items())
    reached = 0
    for (begin, end), tensor in spans:
        if begin != reached:
            fault = "overlaps the tensor before it" if begin < reached else "leaves a gap before it"
            raise InvalidHeader(
                f"{name} has a wrong header: {_shown(tensor)} begins at byte {begin} and {fault}, "
                f"which ends at byte {reached}"
            )
        reached = end
    if reached > data_bytes:
        raise InvalidHeader(
            f"{name} is truncated: its header promises {reached} bytes of tensors, "
            f"the file holds {data_bytes}"
        )
    if reached < data_bytes:
        raise InvalidHeader(
            f"{name} has {data_bytes - reached} bytes behind its last tensor, which ends at byte {reached}"
        )


def _check_tensor(name: str, tensor: str, entry: Any) -> tuple[int, int]:
    wrong = f"{name} has a wrong header: {_shown(tensor)}"
    if not isinstance(entry, dict):
        raise InvalidHeader(f"{wrong} is not described by an object")
    bits = DTYPE_BITS.get(entry["dtype"]) if isinstance(entry.get("dtype"), str) else None
    if bits is None:
        raise InvalidHeader(f"{wrong} has the unknown dtype {_shown(entry.get('dtype'))}")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _whole_numbers(shape) or len(shape) > MOST_DIMENSIONS:
        raise InvalidHeader(f"{wrong} has the shape {_shown(shape)}")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InvalidHeader(f"{wrong} has the data_offsets {_shown(offsets)}")
    needed = math.prod(shape) * bits
    if needed != (offsets[1] - offsets[0]) * 8:
        raise InvalidHeader(
            f"{wrong} of shape {_shown(shape)} and dtype {entry['dtype']} takes {math.ceil(needed / 8)} "
            f"bytes, its data_offsets {offsets} give {offsets[1] - offsets[0]}"
        )
    return offsets[0], offsets[1]


def _whole_numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        type(number) is int and 0 <= number <= LARGEST_NUMBER for number in value
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
