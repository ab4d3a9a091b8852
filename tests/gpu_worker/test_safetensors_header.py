"""Headers that lie are refused with a sentence before anything is read."""

from pathlib import Path
from typing import Any

import pytest

from gpu_worker.errors import RequestFault
from gpu_worker.safetensors_header import read_header
from tests.gpu_worker.tiny import with_header


def tensor(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


def second(**changes: Any) -> dict[str, Any]:
    return {"a": tensor(), "b": tensor(data_offsets=[8, 16]) | changes}


def test_a_good_header_gives_shapes_and_metadata(tmp_path: Path) -> None:
    document = {"__metadata__": {"k": "v"}, "a": tensor()}
    header = read_header(with_header(tmp_path / "f", document, bytes(8)), "f")
    assert header.shape("a") == (2,)
    assert header.metadata == {"k": "v"}


@pytest.mark.parametrize(
    ("header", "data", "sentence"),
    [
        ({"a": tensor()}, bytes(4), "truncated: the header promises"),
        ({"a": tensor()}, bytes(9), "belong to no tensor"),
        ({"a": tensor(shape=[3])}, bytes(8), "needs 12 bytes, its offsets span 8"),
        ({"a": tensor(shape=[2**62, 4])}, bytes(8), "its offsets span 8"),
        ({"a": tensor(shape=[-2])}, bytes(8), "impossible shape"),
        ({"a": tensor(shape=[True, 2])}, bytes(8), "impossible shape"),
        ({"a": tensor(shape=[1] * 100)}, bytes(8), "impossible shape"),
        ({"a": tensor(data_offsets=[8, 0])}, bytes(8), "impossible offsets"),
        ({"a": tensor(data_offsets=[0, 2**70])}, bytes(8), "impossible offsets"),
        ({"a": tensor(dtype="F7")}, bytes(8), "unknown dtype"),
        ({"a": [1]}, bytes(8), "not described by an object"),
        (second(data_offsets=[4, 12]), bytes(12), "overlaps"),
        (second(data_offsets=[12, 20]), bytes(20), "leaves a hole"),
        ({"__metadata__": {"k": 1}, "a": tensor()}, bytes(8), "__metadata__"),
        ({"__metadata__": {}}, b"", "holds no tensors"),
        ([1, 2], b"", "not a JSON object"),
        (b"not json at all", b"", "not valid JSON"),
        (b"[" * 100_000, b"", "not valid JSON"),
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, header: Any, data: bytes, sentence: str) -> None:
    path = with_header(tmp_path / "f", header, data)
    with pytest.raises(RequestFault, match=sentence):
        read_header(path, "shapes.safetensors")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 0])
def test_an_absurd_header_length_is_refused(tmp_path: Path, length: int) -> None:
    path = with_header(tmp_path / "f", {}, b"", length=length)
    with pytest.raises(RequestFault, match=f"promise a header of {length} bytes"):
        read_header(path, "shapes.safetensors")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "only 0 bytes"),
        (b"PK\x03\x04" + bytes(100), "zip archive"),
        (b"\x80\x02}q" + bytes(100), "pickle"),
        (b"<!DOCTYPE html>" + bytes(100), "HTML"),
        (b"\x00\x10\x00\x00\x00\x00\x00\x00" + bytes(100), "truncated or not a safetensors file"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(RequestFault, match=sentence):
        read_header(path, "shapes.safetensors")
