"""Merges checkpoints block by block: whatever their size, a few blocks are in memory.

The formulas are AUTOMATIC1111's: `Weighted sum` A·(1-M) + B·M, `Add difference` A + (B-C)·M, computed in
32 bits. Tensors that the others lack, and whole numbers, stay as the first checkpoint has them.
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_worker.errors import RequestFault
from gpu_worker.files import FileCache, StoredFile
from gpu_worker.safetensors_header import Header, TensorEntry, read_header
from gpu_worker.training.lease import WorkLease
from gpu_worker.training.transfer import PART_BYTES, Transfer
from gpu_worker.training.work import Work, WorkClient

BLOCK = 2**22  # numbers
WEIGHTED_SUM, ADD_DIFFERENCE = "Weighted sum", "Add difference"
VAE_PREFIX = "first_stage_model."
CARRIED = ("sdfleet.", "modelspec.prediction_type", "modelspec.architecture")
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
FLOATS |= {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


class Source:
    """A checkpoint file that is read block by block; `pread` leaves no mapped pages behind."""

    def __init__(self, path: Path, name: str, sha256: str = "") -> None:
        self.name, self.sha256 = name, sha256
        self.header: Header = read_header(path, name)
        self._file = path.open("rb")

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def entry(self, name: str) -> TensorEntry | None:
        """A tensor's description."""
        return self.header.tensors.get(name)

    def raw(self, entry: TensorEntry, start: int, count: int) -> bytearray:
        """`count` numbers of a tensor from number `start` on, as bytes."""
        width = (entry.end - entry.begin) // max(1, math.prod(entry.shape))
        content = os.pread(self._file.fileno(), count * width, entry.begin + start * width)
        if len(content) != count * width:
            raise RequestFault(f"checkpoint {self.name} ends early")
        return bytearray(content)

    def block(self, entry: TensorEntry, start: int, count: int) -> Tensor:
        """The same as numbers of 32 bits."""
        return torch.frombuffer(self.raw(entry, start, count), dtype=FLOATS[entry.dtype]).float()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is merged how."""

    method: str
    multiplier: float
    half: bool
    sources: Sequence[Source]  # one to three
    vae: Source | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """One tensor of the result: where it comes from and how it is kept."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    inputs: tuple[tuple[Source, TensorEntry], ...]  # one: taken as it is; else what the formula needs

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        _, entry = self.inputs[0]
        if self.dtype == entry.dtype:
            return entry.end - entry.begin
        return self.count * FLOATS[self.dtype].itemsize


def plan(recipe: Recipe) -> list[Planned]:
    """Every tensor of the result in the first file's order. Raises RequestFault where shapes differ."""
    first = recipe.sources[0]
    ordered = sorted(first.header.tensors.items(), key=lambda item: item[1].begin)
    return [_planned(recipe, name, entry) for name, entry in ordered]


def _planned(recipe: Recipe, name: str, entry: TensorEntry) -> Planned:
    first, *others = recipe.sources
    inputs: tuple[tuple[Source, TensorEntry], ...] = ((first, entry),)
    baked = _vae_entry(recipe, name)
    if baked is not None and recipe.vae is not None:
        _same_shape(name, first, entry, recipe.vae, baked)
        inputs = ((recipe.vae, baked),)
    elif others and entry.dtype in FLOATS:
        found = [(source, source.entry(name)) for source in others]
        if all(other is not None for _, other in found):
            for source, other in found:
                assert other is not None
                _same_shape(name, first, entry, source, other)
                if other.dtype not in FLOATS:
                    raise RequestFault(f'tensor "{name}" of {source.name} is of type {other.dtype}')
                inputs = (*inputs, (source, other))
    kept = inputs[0][1].dtype
    dtype = "F16" if recipe.half and kept in FLOATS else kept
    return Planned(name, dtype, entry.shape, inputs)


def _vae_entry(recipe: Recipe, name: str) -> TensorEntry | None:
    if recipe.vae is None or not name.startswith(VAE_PREFIX):
        return None
    return recipe.vae.entry(name) or recipe.vae.entry(name.removeprefix(VAE_PREFIX))


def _same_shape(name: str, first: Source, entry: TensorEntry, other: Source, found: TensorEntry) -> None:
    if math.prod(entry.shape) != math.prod(found.shape) or _tight(entry) != _tight(found):
        raise RequestFault(
            f'{first.name} and {other.name} cannot be merged: tensor "{name}" has shape {list(entry.shape)} '
            f"in one and {list(found.shape)} in the other"
        )


def _tight(entry: TensorEntry) -> list[int]:
    return [side for side in entry.shape if side != 1]  # a VAE's attention may be 1x1 convolutions


def header_of(planned: Sequence[Planned], metadata: Mapping[str, str]) -> bytes:
    """The safetensors header of the result, with its length before it."""
    described: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for one in planned:
        described[one.name] = {
            "dtype": one.dtype,
            "shape": list(one.shape),
            "data_offsets": [offset, offset + one.bytes],
        }
        offset += one.bytes
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def blocks(recipe: Recipe, one: Planned) -> Iterator[bytes]:
    """The tensor's bytes, block by block."""
    source, entry = one.inputs[0]
    for start in range(0, one.count, BLOCK):
        count = min(BLOCK, one.count - start)
        if len(one.inputs) == 1 and one.dtype == entry.dtype:
            yield bytes(source.raw(entry, start, count))
            continue
        parts = [given.block(described, start, count) for given, described in one.inputs]
        made = _formula(recipe, parts).to(FLOATS[one.dtype])
        if not torch.isfinite(made.float()).all():
            raise RequestFault(
                f'tensor "{one.name}" has values that {one.dtype} cannot hold: set save_as_half to false'
            )
        yield made.view(torch.uint8).numpy().tobytes()


def _formula(recipe: Recipe, parts: Sequence[Tensor]) -> Tensor:
    if len(parts) == 2:
        return parts[0] * (1 - recipe.multiplier) + parts[1] * recipe.multiplier
    if len(parts) == 3:
        return parts[0] + (parts[1] - parts[2]) * recipe.multiplier
    return parts[0]


def in_parts(pieces: Iterator[bytes], size: int = PART_BYTES) -> Iterator[bytearray]:
    """The bytes of all pieces in parts of `size`, the last one shorter."""
    buffer = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while view:
            room = size - len(buffer)
            buffer += view[:room]
            view = view[room:]
            if len(buffer) == size:
                yield buffer
                buffer = bytearray()
    if buffer:
        yield buffer


def metadata_of(recipe: Recipe) -> dict[str, str]:
    """The first file's own architecture, and the recipe in the WebUI's names."""
    carried = {
        name: value for name, value in recipe.sources[0].header.metadata.items() if name.startswith(CARRIED)
    }
    if recipe.vae is not None:
        said = recipe.vae.header.metadata
        carried |= {name: value for name, value in said.items() if name.startswith("sdfleet.vae")}
    hashes = [source.sha256 for source in recipe.sources] + ["", ""]
    told = {
        "type": "sdfleet",
        "primary_model_hash": hashes[0],
        "secondary_model_hash": hashes[1] or None,
        "tertiary_model_hash": hashes[2] or None,
        "interp_method": recipe.method,
        "multiplier": recipe.multiplier,
        "save_as_half": recipe.half,
        "bake_in_vae": recipe.vae is not None,
    }
    models = {source.sha256: {"name": source.name} for source in recipe.sources}
    return {
        "format": "pt",
        **carried,
        "sd_merge_recipe": json.dumps(told),
        "sd_merge_models": json.dumps(models),
    }


def merge(client: WorkClient, work: Work, lease: WorkLease, transfer: Transfer, files: FileCache) -> None:
    """Merges, uploads as it goes, and completes; raises `JobFault` or `Dropped`."""
    params = work.params
    with ExitStack() as opened:
        lease.note(doing="fetching the checkpoints")
        stored: dict[tuple[str, str], StoredFile] = {}
        for file in work.files:
            stored[file.type, file.name] = opened.enter_context(files.open(file, lease.check))

        def source(kind: str, name: str) -> Source:
            found = stored[kind, name]
            return opened.enter_context(Source(found.path, name, found.sha256))

        names = [params[f"{place}_model_name"] for place in ("primary", "secondary", "tertiary")]
        recipe = Recipe(
            method=params["interp_method"],
            multiplier=float(params["multiplier"]),
            half=bool(params["save_as_half"]),
            sources=[source("Stable-diffusion", name) for name in names if name],
            vae=source("VAE", params["bake_in_vae"]) if params["bake_in_vae"] else None,
        )
        planned = plan(recipe)
        head = header_of(planned, metadata_of(recipe))
        size = len(head) + sum(one.bytes for one in planned)
        pieces = _told(lease, recipe, planned, head)
        made = transfer.send("result.safetensors", size, in_parts(pieces))
        lease.persist(lambda: client.complete_work(work, made, False, {}))


def _told(lease: WorkLease, recipe: Recipe, planned: Sequence[Planned], head: bytes) -> Iterator[bytes]:
    yield head
    for step, one in enumerate(planned, 1):
        lease.check()
        yield from blocks(recipe, one)
        lease.note(step=step, steps=len(planned), doing="merging")
