"""Textual inversion: words whose vectors come from a file.

Forms read: the WebUI's ``emb_params``; SDXL's pairs ``clip_l`` and ``clip_g``; diffusers' one tensor under
the token's name. modules/textual_inversion/textual_inversion.py of the WebUI says which is which.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load_file
from torch import Tensor

from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.safetensors_header import read_header
from gpu_worker.token_chunks import CHUNK

SINGLE, FIRST, SECOND = "", "clip_l", "clip_g"


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """An embedding in memory: (vectors, width) for each kind of text encoder.

    `short_hash` are the first ten digits of the file's sha256.
    """

    name: str
    short_hash: str
    vectors: Mapping[str, Tensor]

    @property
    def count(self) -> int:
        """How many tokens it is worth."""
        return int(next(iter(self.vectors.values())).shape[0])

    def of(self, kind: str, width: int, checkpoint: str) -> Tensor:
        """The vectors for one text encoder; raises `RequestFault` when they are made for another."""
        found = self.vectors.get(kind)
        if found is None or found.shape[1] != width:
            made_for = " and ".join(str(tensor.shape[1]) for tensor in self.vectors.values())
            raise RequestFault(
                f"embedding {self.name} has vectors of width {made_for}, checkpoint {checkpoint} needs "
                f"{width}{' of ' + kind if kind else ''}: it belongs to another kind of Stable Diffusion"
            )
        return found


def read_embedding(stored: StoredFile, name: str, device: Device) -> tuple[Embedding, int]:
    """An embedding and its bytes in memory; raises `RequestFault` when the file is at fault."""
    header = read_header(stored.path, name)
    keys = list(header.tensors)
    if {FIRST, SECOND} <= set(keys):
        kinds = {FIRST: FIRST, SECOND: SECOND}
    elif "emb_params" in keys:
        kinds = {SINGLE: "emb_params"}
    elif len(keys) == 1:
        kinds = {SINGLE: keys[0]}
    else:
        raise RequestFault(f"{name} is no embedding: it holds {len(keys)} tensors, none of them emb_params")
    shapes = {kind: header.tensors[key].shape for kind, key in kinds.items()}
    counts = {1 if len(shape) == 1 else shape[0] for shape in shapes.values()}
    if any(len(shape) not in (1, 2) for shape in shapes.values()) or len(counts) != 1:
        raise RequestFault(f"{name} is no embedding: its tensors have the shapes {list(shapes.values())}")
    if not 1 <= (count := counts.pop()) <= CHUNK:
        raise RequestFault(
            f"embedding {name} has {count} vectors, a prompt has room for 1 to {CHUNK} in a row"
        )
    tensors = load_file(stored.path)
    vectors = {kind: _rows(tensors[key], name).to(device.torch_device) for kind, key in kinds.items()}
    return Embedding(name, stored.short_hash, vectors), sum(
        v.numel() * v.element_size() for v in vectors.values()
    )


def _rows(tensor: Tensor, name: str) -> Tensor:
    rows = torch.atleast_2d(tensor).float()
    if not bool(torch.isfinite(rows).all()):
        raise RequestFault(f"embedding {name} cannot be used: it holds values that are not numbers")
    return rows
