"""How much memory it takes to merge two checkpoints of 2 GB: `make bench ONLY=merge_memory`.

The files are made of random numbers in the sizes that SD 1.5's tensors have; what is merged is thrown away
part by part, as an upload does.
"""

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gpu_worker.training.merge import Recipe, Source, blocks, header_of, in_parts, metadata_of, plan
from stack.failures import StackError

FILE_BYTES = 2_000_000_000
LARGEST = 49408 * 768  # numbers: SD 1.5's table of words
USUAL = 1280 * 1280 * 9


def write(path: Path, size: int = FILE_BYTES) -> None:
    """A safetensors file of fp16 numbers, `size` bytes of tensors."""
    counts, left = [LARGEST], size // 2 - LARGEST
    while left > 0:
        counts.append(min(USUAL, left))
        left -= counts[-1]
    described: dict[str, Any] = {}
    offset = 0
    for number, count in enumerate(counts):
        end = offset + 2 * count
        described[f"model.{number}"] = {"dtype": "F16", "shape": [count], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(described).encode()
    noise = bytes(byte & 0xBB for byte in os.urandom(2**20))  # no exponent of all ones: finite numbers
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        while offset > 0:
            file.write(noise[: min(offset, len(noise))])
            offset -= len(noise)


def run() -> dict[str, Any]:
    """The figures of a merge in a process of its own, as a worker does it: a peak is the whole process's."""
    ran = subprocess.run([sys.executable, "-m", "bench.merge_memory"], capture_output=True, text=True)
    if ran.returncode:
        raise StackError(ran.stderr.strip()[-500:])
    figures: dict[str, Any] = json.loads(ran.stdout)
    return figures


def merge(folder: Path) -> dict[str, Any]:
    """Merge two such files; peak resident bytes and seconds."""
    paths = [folder / name for name in ("a.safetensors", "b.safetensors")]
    for path in paths:
        write(path)
    before = peak()
    began, made = time.perf_counter(), 0
    recipe = Recipe("Weighted sum", 0.5, True, [Source(path, path.name) for path in paths])
    planned = plan(recipe)

    def pieces() -> Any:
        yield header_of(planned, metadata_of(recipe))
        for one in planned:
            yield from blocks(recipe, one)

    for part in in_parts(pieces()):
        made += len(part)
    for path in paths:
        path.unlink()
    return {
        "source_bytes": [FILE_BYTES, FILE_BYTES],
        "result_bytes": made,
        "peak_bytes": peak(),
        "peak_before_bytes": before,
        "seconds": round(time.perf_counter() - began, 1),
    }


def peak() -> int:
    """The largest resident size of this process so far, in bytes; getrusage would count its parent's too."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary:
        print(json.dumps(merge(Path(temporary))))
