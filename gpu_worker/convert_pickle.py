"""Converts a pickle of tensors to safetensors: `python -I gpu_worker/convert_pickle.py SOURCE TARGET NAME`.

Run by the checkpoints service in a process of its own, without network and with an empty environment. It
limits itself before it touches the file, loads with `weights_only`, which runs no code that the pickle names,
and writes one JSON object: `{"tensors": n}`, or `{"error": sentence}` with exit status 1. It imports nothing
of sdfleet.
"""

import ctypes
import json
import re
import resource
import signal
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MEMORY_BESIDE_THE_FILE = 2**30  # bytes
CPU_SECONDS = 60
CPU_SECONDS_PER_GB = 30
MOST_TENSORS = 100_000
MOST_NODES = 1_000_000  # of nested containers
DEEPEST = 16
WRITE_BYTES = 2**26
MOST_METADATA, LONGEST_METADATA = 20, 500
# Where programs keep the tensors inside what they pickle: PyTorch Lightning, BasicSR, GFPGAN.
INSIDE = ("state_dict", "params_ema", "params", "g_ema")
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
# Classes that published checkpoints name beside their tensors; something that does nothing takes their place.
HARMLESS = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "torch.nn.modules.container.ParameterDict",
)


class Unconvertible(Exception):
    """The file cannot be converted; the text ends the sentence that begins with its name."""


class Inert(dict[Any, Any]):
    """Takes the place of a class that is not loaded."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


def main(source: str, target: str, name: str) -> int:
    """Convert; the exit status."""
    try:
        limit(Path(source).stat().st_size)
        count = convert(Path(source), Path(target))
    except Unconvertible as reason:
        return _say({"error": f"{name} cannot be converted to safetensors: {reason}"}, 1)
    except (MemoryError, RuntimeError):  # the second: torch's own when it cannot allocate
        return _say({"error": f"{name} cannot be converted to safetensors: it takes too much memory"}, 1)
    except OSError as error:
        return _say({"error": f"{name} cannot be converted to safetensors: {error.strerror}"}, 1)
    return _say({"tensors": count}, 0)


def _say(answer: dict[str, Any], status: int) -> int:
    sys.stdout.write(json.dumps(answer))
    return status


def limit(size: int) -> None:
    """Bound this process before it reads a byte of the file of `size` bytes; it dies with its parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    # The file is mapped, an old format is read; then one tensor at a time is copied.
    _bound(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY_BESIDE_THE_FILE + 3 * size)
    _bound(resource.RLIMIT_CPU, CPU_SECONDS + CPU_SECONDS_PER_GB * size // 10**9)
    _bound(resource.RLIMIT_FSIZE, _most_bytes(size) + 2**27)
    _bound(resource.RLIMIT_NOFILE, 64)
    _bound(resource.RLIMIT_CORE, 0)


def _bound(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def _most_bytes(size: int) -> int:
    """What the tensors of a file may take: shared ones are written twice."""
    return 2 * size + 2**20


def convert(source: Path, target: Path) -> int:
    """Write the tensors of the pickle at `source` to `target`; how many. Raises Unconvertible."""
    check_archive(source)
    loaded = _load(source)
    tensors = dict(find_tensors(loaded))
    if not tensors:
        raise Unconvertible("it holds no tensors")
    needed = sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
    if needed > _most_bytes(size := source.stat().st_size):
        raise Unconvertible(f"its tensors claim {needed} bytes, the file has {size}")
    write(target, tensors, _metadata(loaded))
    return len(tensors)


def check_archive(source: Path) -> None:
    """Refuse zip archives that grow when they are read; PyTorch does not compress. Raises Unconvertible."""
    with source.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
        try:
            entries = zipfile.ZipFile(file).infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise Unconvertible("its zip archive is damaged or truncated") from None
    size = source.stat().st_size
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise Unconvertible("its zip archive is compressed, as PyTorch's never are: it may be a zip bomb")
    if (claimed := sum(entry.file_size for entry in entries)) > size:
        raise Unconvertible(f"its zip archive claims to hold {claimed} bytes, the file has {size}")


def _load(source: Path) -> Any:
    stand_ins: list[Any] = [(Inert, name) for name in HARMLESS]
    try:
        with torch.serialization.safe_globals(stand_ins):
            mapped = zipfile.is_zipfile(source)
            return torch.load(str(source), map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:
        raise Unconvertible(_why(str(error))) from None


def _why(error: str) -> str:
    """A sentence for what torch says on many lines."""
    # torch names what it refuses as `GLOBAL posix.system`, in some cases without the first word.
    named = re.search(r"(?:GLOBAL|global|function|class|type) ['\"`]?([\w.]+\.[\w.]+)", error)
    if "nsupported" in error or "rying to" in error or "not an allowed" in error:
        what = f" ({named[1]})" if named else ""
        return f"it asks for more than tensors{what}; such code is never run"
    if "alloc" in error or "mmap" in error:
        return "it takes too much memory"
    return "it is no PyTorch file, or damaged"


def find_tensors(loaded: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of each dense tensor inside nested containers. Raises Unconvertible."""
    if isinstance(loaded, dict):
        loaded = next((loaded[key] for key in INSIDE if isinstance(loaded.get(key), dict)), loaded)
    if isinstance(loaded, dict) and "string_to_param" in loaded:  # a textual inversion of the WebUI
        found = [tensor for _, tensor in _walk(loaded["string_to_param"], (), [0])]
        loaded = {"emb_params": found[0]} if found else {}
    for count, (path, tensor) in enumerate(_walk(loaded, (), [0])):
        if count >= MOST_TENSORS:
            raise Unconvertible(f"it holds more than {MOST_TENSORS} tensors")
        name = ".".join(path) or "tensor"
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.dtype not in DTYPES:
            raise Unconvertible(f"safetensors has no form for its tensor {name[:100]} ({tensor.dtype})")
        yield name, tensor.detach()


def _walk(
    value: Any, path: tuple[str, ...], seen: list[int]
) -> Iterator[tuple[tuple[str, ...], torch.Tensor]]:
    seen[0] += 1
    if seen[0] > MOST_NODES or len(path) > DEEPEST:
        raise Unconvertible("its containers are nested too deeply, or too many")
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _walk(member, (*path, str(key)), seen)
    elif isinstance(value, list | tuple):
        for place, member in enumerate(value):
            yield from _walk(member, (*path, str(place)), seen)


def _metadata(loaded: Any) -> dict[str, str]:
    """What the file says about itself in words and numbers."""
    members = loaded.items() if isinstance(loaded, dict) else ()
    plain = {str(key): str(value) for key, value in members if isinstance(value, str | int | float)}
    short = [(key, text) for key, text in plain.items() if len(key) + len(text) <= LONGEST_METADATA]
    return {"format": "pt"} | dict(short[:MOST_METADATA])


def write(target: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file (https://github.com/huggingface/safetensors#format), one tensor copied at a time."""
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # aligned for every dtype
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name in order:
        tensor = tensors[name]
        begin, end = end, end + tensor.numel() * tensor.itemsize
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            array: Any = tensors[name].contiguous().flatten().view(torch.uint8).numpy()
            content = memoryview(array)
            for start in range(0, len(content), WRITE_BYTES):
                file.write(content[start : start + WRITE_BYTES])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
