"""Reads LoRA files of every common kind: LoRA, LoCon, LoHa, LoKr, whole differences, by two sorts of names.

Names: kohya-ss/sd-scripts (``lora_unet_…``, ``lora_te_…``), diffusers and peft (``unet.….lora_A.weight``),
LyCORIS (``hada_…``, ``lokr_…``). Formulas: extensions-builtin/Lora/network_*.py of the WebUI.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.safetensors_header import LENGTH_BYTES, read_header

HASH_LENGTH = 12
READ_BYTES = 2**20
_SIDES = {
    "up": r"lora_up\.weight|lora_B(?:\.default)?\.weight|lora(?:_linear_layer)?\.up\.weight",
    "down": r"lora_down\.weight|lora_A(?:\.default)?\.weight|lora(?:_linear_layer)?\.down\.weight",
    "mid": r"lora_mid\.weight",
    "alpha": r"alpha",
    "other": r"hada_w[12]_[ab]|hada_t[12]|lokr_w[12](?:_[ab])?|lokr_t2|diff|diff_b|w_norm|b_norm|dora_scale",
}
_ANY = "|".join(f"(?P<{side}>{names})" for side, names in _SIDES.items())
KEY = re.compile(rf"(?P<module>.+?)[.](?:{_ANY})(?:[.]weight)?")
OLD_DIFFUSERS = re.compile(r"\.processor\.(to_\w+?)_lora\.(up|down)\.weight$")


@dataclass(frozen=True, slots=True)
class Delta:
    """What one layer's weight changes by, as the parts that the file holds."""

    parts: Mapping[str, Tensor]

    def weight(self, rank: int = 0) -> Tensor | None:
        """The change of the weight at strength 1, in fp32; None when there is none, shapes are the file's.

        Raises RuntimeError or KeyError for parts that do not fit one another.
        """
        parts = {name: tensor.float() for name, tensor in self.parts.items()}
        if "up" in parts or "down" in parts:
            return self._low_rank(parts, rank)
        if any(name.startswith("hada_") for name in parts):
            return self._hadamard(parts)
        if any(name.startswith("lokr_") for name in parts):
            return self._kronecker(parts)
        return parts.get("diff", parts.get("w_norm"))

    def bias(self) -> Tensor | None:
        """The change of the bias."""
        found = self.parts.get("diff_b", self.parts.get("b_norm"))
        return None if found is None else found.float()

    def _scale(self, dimension: int) -> float:
        alpha = self.parts.get("alpha")
        return 1.0 if alpha is None else float(alpha) / dimension

    def _low_rank(self, parts: Mapping[str, Tensor], rank: int) -> Tensor:
        up, down = parts["up"], parts["down"]
        scale = self._scale(down.shape[0])
        if "mid" in parts:
            return scale * torch.einsum("orab,rscd,siab->oicd", up, parts["mid"], down)
        if rank:
            up, down = up[:, :rank], down[:rank]
        product = up.flatten(1) @ down.flatten(1)
        return scale * product.reshape(up.shape[0], *down.shape[1:])

    def _hadamard(self, parts: Mapping[str, Tensor]) -> Tensor:
        factors = []
        for which in "12":
            a, b, core = parts[f"hada_w{which}_a"], parts[f"hada_w{which}_b"], parts.get(f"hada_t{which}")
            factors.append(a @ b if core is None else torch.einsum("ijkl,jr,ip->prkl", core, b, a))
        return self._scale(parts["hada_w1_b"].shape[0]) * factors[0] * factors[1]

    def _kronecker(self, parts: Mapping[str, Tensor]) -> Tensor:
        whole = []
        dimension = 0
        for which in "12":
            if (full := parts.get(f"lokr_w{which}")) is not None:
                whole.append(full)
                continue
            a, b, core = parts[f"lokr_w{which}_a"], parts[f"lokr_w{which}_b"], parts.get("lokr_t2")
            dimension = b.shape[0]
            is_core = which == "2" and core is not None
            whole.append(torch.einsum("ijkl,ip,jr->prkl", core, a, b) if is_core else a @ b.flatten(1))
            if not is_core and b.dim() > 2:
                whole[-1] = whole[-1].reshape(a.shape[0], *b.shape[1:])
        first, second = whole
        first = first.reshape(*first.shape, *[1] * (second.dim() - first.dim()))
        return (self._scale(dimension) if dimension else 1.0) * torch.kron(first, second.contiguous())


@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """A LoRA in memory: what changes, by the layer's name in the file; `short_hash` as infotexts show it.

    `text_width` is the width of the texts that its attention reads, where it says so.
    """

    name: str
    alias: str | None
    short_hash: str
    deltas: Mapping[str, Delta]
    text_width: int | None


def read_lora(stored: StoredFile, name: str, device: Device) -> tuple[Lora, int]:
    """A LoRA and its bytes in memory; raises `RequestFault` when the file is at fault."""
    header = read_header(stored.path, name)
    tensors = load_file(stored.path, device=str(device.torch_device))
    parts: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        match = KEY.fullmatch(OLD_DIFFUSERS.sub(r".\1.lora.\2.weight", key))
        if match is None:
            unknown.append(key)
            continue
        part = match["other"] or next(side for side in ("up", "down", "mid", "alpha") if match[side])
        parts.setdefault(match["module"], {})[part] = tensor
    if not parts or len(unknown) > len(tensors) // 10:
        raise RequestFault(
            f'{name} is no LoRA that this worker can read: its tensor "{(unknown or [""])[0][:120]}" means '
            "nothing to it"
        )
    if any("dora_scale" in of_layer for of_layer in parts.values()):
        raise RequestFault(f"LoRA {name} has weights that are decomposed (DoRA), which is not supported")
    deltas = {module: Delta(of_layer) for module, of_layer in parts.items()}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return Lora(name, header.metadata.get("ss_output_name"), _hash(stored), deltas, _text_width(deltas)), size


def _text_width(deltas: Mapping[str, Delta]) -> int | None:
    for module, delta in deltas.items():
        if re.search(r"attn2[._]to_k$", module) and "down" in delta.parts:
            return int(delta.parts["down"].shape[1])
    return None


def _hash(stored: StoredFile) -> str:
    """The WebUI's hash of a LoRA: the sha256 of what follows the header (``addnet_hash_safetensors``)."""
    digest = hashlib.sha256()
    with stored.path.open("rb") as file:
        file.seek(int.from_bytes(file.read(LENGTH_BYTES), "little") + LENGTH_BYTES)
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()[:HASH_LENGTH]


def fits(delta: Any, parameter: Tensor) -> bool:
    """Whether a change has a parameter's shape; 1x1 convolutions and matrices are the same."""
    return bool(delta.numel() == parameter.numel() and delta.shape[0] == parameter.shape[0])
