"""Reads and checks the header of a safetensors file before any of its numbers is believed."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from gpu_worker.errors import RequestFault

# The format's own limit: https://github.com/huggingface/safetensors (MAX_HEADER_SIZE).
MAX_HEADER_BYTES = 100_000_000
LENGTH_BYTES = 8
MAX_DIMENSIONS = 8
DTYPE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
    "F64": 8,
}
# What other weight files begin with, for a sentence that helps.
KNOWN_BEGINNINGS = {
    b"PK\x03\x04": "a zip archive (probably a PyTorch .ckpt or .pth)",
    b"\x80\x02": "a Python pickle (probably a PyTorch .ckpt or .pth)",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive",
    b"<!DO": "an HTML page",
    b"<htm": "an HTML page",
    b"vers": "a Git LFS pointer",
    b"\x89PNG": "a PNG picture",
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: its safetensors dtype, its shape and where its bytes lie in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header: tensors by name, and the file's metadata."""

    tensors: dict[str, TensorEntry]
    metadata: dict[str, str]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, or None when the file does not have it."""
        entry = self.tensors.get(name)
        return entry.shape if entry else None


def read_header(path: Path, name: str) -> Header:
    """Reads only the header of the file at `path`; raises `RequestFault` with a sentence about `name`.

    Checked: the length against the file, the JSON, dtypes, shapes, and that the tensors' bytes fill the rest
    of the file without hole or overlap, as https://github.com/huggingface/safetensors#format demands.
    """
    file_size = path.stat().st_size
    with path.open("rb") as file:
        length_bytes = file.read(LENGTH_BYTES)
        header_size = _checked_length(length_bytes, file_size, name)
        text = file.read(header_size)
    document = _parse_object(text, name)
    metadata = _checked_metadata(document.pop("__metadata__", {}), name)
    data_begin = LENGTH_BYTES + header_size
    tensors = {key: _checked_entry(key, value, data_begin, name) for key, value in document.items()}
    if not tensors:
        raise RequestFault(f"checkpoint {name} holds no tensors")
    _check_layout(tensors, data_begin, file_size, name)
    return Header(tensors=tensors, metadata=metadata)


def _checked_length(length_bytes: bytes, file_size: int, name: str) -> int:
    for beginning, meaning in KNOWN_BEGINNINGS.items():
        if length_bytes.startswith(beginning):
            raise RequestFault(f"checkpoint {name} is not a safetensors file: it looks like {meaning}")
    if len(length_bytes) < LENGTH_BYTES:
        raise RequestFault(
            f"checkpoint {name} is not a safetensors file: it has only {len(length_bytes)} bytes"
        )
    header_size = int.from_bytes(length_bytes, "little")
    if not 2 <= header_size <= MAX_HEADER_BYTES:
        raise RequestFault(
            f"checkpoint {name} is not a safetensors file: its first 8 bytes promise a header of "
            f"{header_size} bytes, "
            f"allowed are 2 to {MAX_HEADER_BYTES}"
        )
    if LENGTH_BYTES + header_size > file_size:
        raise RequestFault(
            f"checkpoint {name} is truncated or not a safetensors file: its header should end at byte "
            f"{LENGTH_BYTES + header_size}, the file has {file_size}"
        )
    return header_size


def _parse_object(text: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise RequestFault(
            f"checkpoint {name} is not a safetensors file: its header is not valid JSON"
        ) from None
    if not isinstance(document, dict):
        raise RequestFault(f"checkpoint {name} is not a safetensors file: its header is not a JSON object")
    return document


def _checked_metadata(metadata: Any, name: str) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise RequestFault(f"checkpoint {name} has a wrong header: __metadata__ must map text to text")
    return metadata


def _checked_entry(key: str, value: Any, data_begin: int, name: str) -> TensorEntry:
    label = f'checkpoint {name} has a wrong header: tensor "{key[:200]}"'
    if not isinstance(value, dict):
        raise RequestFault(f"{label} is not described by an object")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise RequestFault(f"{label} has the unknown dtype {str(dtype)[:40]!r}")
    if not _is_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise RequestFault(f"{label} has the impossible shape {str(shape)[:80]}")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise RequestFault(f"{label} has the impossible offsets {str(offsets)[:80]}")
    expected = math.prod(shape) * DTYPE_BYTES[dtype]
    if offsets[1] - offsets[0] != expected:
        raise RequestFault(
            f"{label} of shape {list(shape)} and dtype {dtype} needs {expected} bytes, "
            f"its offsets span {offsets[1] - offsets[0]}"
        )
    return TensorEntry(dtype, tuple(shape), data_begin + offsets[0], data_begin + offsets[1])


def _is_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_layout(tensors: dict[str, TensorEntry], data_begin: int, file_size: int, name: str) -> None:
    """Demands that the tensors lie one after the other and end where the file ends."""
    position = data_begin
    for key, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            fault = "overlaps the one before it" if entry.begin < position else "leaves a hole before it"
            raise RequestFault(f'checkpoint {name} has a wrong header: tensor "{key[:200]}" {fault}')
        position = entry.end
    if position > file_size:
        raise RequestFault(
            f"checkpoint {name} is truncated: the header promises {position} bytes, the file has {file_size}"
        )
    if position < file_size:
        raise RequestFault(
            f"checkpoint {name} has a wrong header: {file_size - position} bytes at its end belong to no "
            "tensor"
        )
