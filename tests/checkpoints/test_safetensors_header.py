"""Headers of .safetensors files: what is accepted, and the sentence for each thing that is not."""

import json
import struct
from typing import Any

import pytest

from services.checkpoints.safetensors_header import LARGEST_HEADER, InvalidHeader, read_header
from tests.checkpoints.conftest import safetensors


def read(content: bytes, size: int | None = None) -> Any:
    return read_header(
        "a.safetensors",
        len(content) if size is None else size,
        lambda start, length: content[start : start + length],
    )


def with_header(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(begin: int, end: int, **changes: Any) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]} | changes


def test_a_valid_file_gives_its_tensors_and_metadata() -> None:
    header = read(safetensors(10))
    assert header.tensors == {"weight": {"dtype": "U8", "shape": [10], "data_offsets": [0, 10]}}
    assert header.metadata == {"format": "pt"}


def test_a_file_of_the_safetensors_library_is_accepted() -> None:
    numpy = pytest.importorskip("numpy")
    save = pytest.importorskip("safetensors.numpy").save
    tensors = {"a": numpy.zeros((3, 5), "float16"), "b": numpy.zeros(()), "empty": numpy.zeros((0, 4))}
    assert set(read(save(tensors)).tensors) == {"a", "b", "empty"}


def test_only_the_length_and_the_header_are_read() -> None:
    content, asked = safetensors(10_000_000), []

    def spy(start: int, length: int) -> bytes:
        asked.append((start, length))
        return content[start : start + length]

    read_header("a.safetensors", len(content), spy)
    assert asked == [(0, 8), (8, len(content) - 10_000_000 - 8)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it holds 0 bytes"),
        (b"12345678", "it holds 8 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "claim a header of 9223372036854775808 bytes, the file has 10"),
        (struct.pack("<Q", 1) + b"{}", "claim a header of 1 bytes, the shortest has 2"),
        (b"PK\x03\x04" + bytes(100), "it is a zip archive"),
        (b"\x80\x02}q\x00" + bytes(100), "it is a pickle"),
        (b"<!DOCTYPE html><html>", "it is a web page"),
        (with_header(b"not json"), "its header does not begin with {"),
        (with_header(b"{not json"), "its header is not JSON"),
        (with_header(b'{"a":' * 50_000), "its header is not JSON"),
        (with_header(b'{"\xff": 1}'), "its header is not JSON"),
        (with_header(b'{"a": NaN, "a": 1}'), "its header names a tensor twice"),
        (with_header({}), "holds no tensors"),
        (with_header({"__metadata__": {"a": 1}}), "its __metadata__ is not a map of strings"),
        (with_header({"a": 1}), "'a' is not described by an object"),
        (with_header({"a": tensor(0, 1, dtype="U7")}, b"1"), "unknown dtype 'U7'"),
        (with_header({"a": tensor(0, 1, dtype=[])}, b"1"), "unknown dtype []"),
        (with_header({"a": tensor(0, 1, shape=[-1])}, b"1"), "has the shape [-1]"),
        (with_header({"a": tensor(0, 1, shape=[True])}, b"1"), "has the shape [True]"),
        (with_header({"a": tensor(0, 1, shape=[1] * 99)}, b"1"), "has the shape [1, 1"),
        (with_header({"a": tensor(0, 1, data_offsets=[1, 0])}, b"1"), "has the data_offsets [1, 0]"),
        (with_header({"a": tensor(0, 1, data_offsets=None)}, b"1"), "has the data_offsets None"),
        (
            with_header({"a": tensor(0, 4, dtype="F16")}, b"1234"),
            "takes 8 bytes, its data_offsets [0, 4] give 4",
        ),
        (with_header({"a": tensor(0, 4, shape=[2**62, 2**62])}, b"1234"), "its data_offsets [0, 4] give 4"),
        (
            with_header({"a": tensor(0, 4), "b": tensor(2, 6)}, b"123456"),
            "'b' begins at byte 2 and overlaps the tensor before it, which ends at byte 4",
        ),
        (
            with_header({"a": tensor(0, 4), "b": tensor(6, 8)}, bytes(8)),
            "'b' begins at byte 6 and leaves a gap",
        ),
        (safetensors(100)[:-10], "is truncated: its header promises 100 bytes of tensors, the file holds 90"),
        (safetensors(100) + b"more", "has 4 bytes behind its last tensor, which ends at byte 100"),
    ],
)
def test_an_invalid_file_is_refused_with_its_name_and_the_numbers(content: bytes, sentence: str) -> None:
    with pytest.raises(InvalidHeader) as refused:
        read(content)
    assert sentence in str(refused.value)
    assert "a.safetensors" in str(refused.value)


def test_a_header_of_gigabytes_is_not_read() -> None:
    content = struct.pack("<Q", LARGEST_HEADER + 1) + b"{"
    with pytest.raises(InvalidHeader, match="more than 10485760 are not read"):
        read(content, size=2**40)
