"""Puts LoRAs into a checkpoint's weights, and takes them out again, without reading its file anew.

The weights are changed in place, as the WebUI does: each step of the denoising costs nothing more, and a
compiled model stays compiled. What is changed is copied before: the checkpoint comes back bit for bit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpu_worker import single_file_export as export
from gpu_worker.errors import RequestFault
from gpu_worker.lora_files import Lora, fits
from gpu_worker.networks import Use

TEXT_ENCODERS = {"text_encoder": "te1", "text_encoder_2": "te2"}
# A few names of a file may mean layers that this checkpoint does not have.
UNKNOWN_SHARE = 0.1


@dataclass(slots=True)
class Layers:
    """Modules of a checkpoint by the names that LoRA files give them, without their weights' suffix."""

    modules: dict[str, tuple[str, Any]]

    @classmethod
    def of(cls, pipeline: Any) -> "Layers":
        """All modules with weights; kohya joins a path with ``_``, diffusers leaves it as it is."""
        found: dict[str, tuple[str, Any]] = {}
        unet = pipeline.unet
        original = zip(unet.state_dict(), export.convert_unet(unet), strict=True)
        ldm = {key.rpartition(".")[0]: name.rpartition(".")[0] for key, name in original}
        for path, module in _weighty(unet):
            names = [f"lora_unet_{_flat(path)}", f"unet.{path}"]
            if path in ldm:
                names.append(f"lora_unet_{_flat(ldm[path].removeprefix(export.UNET_PREFIX))}")
            if path.endswith(".to_out.0"):  # the first LoRAs of diffusers
                names.append(f"unet.{path.removesuffix('.0')}")
            found |= dict.fromkeys(names, ("unet", module))
        is_xl = getattr(pipeline, "text_encoder_2", None) is not None
        for component, short in TEXT_ENCODERS.items():
            encoder = getattr(pipeline, component, None)
            prefix = f"lora_{short}" if is_xl else "lora_te"
            for path, module in _weighty(encoder) if encoder is not None else ():
                # transformers dropped this prefix in release 5.6; files have it.
                inner = (
                    path if path == "text_projection" else "text_model." + path.removeprefix("text_model.")
                )
                names = [f"{prefix}_{_flat(inner)}", f"{component}.{inner}"]
                found |= dict.fromkeys(names, ("text", module))
        return cls(found)


def _weighty(model: Any) -> Iterable[tuple[str, Any]]:
    return ((path, module) for path, module in model.named_modules() if hasattr(module, "weight"))


def _flat(path: str) -> str:
    return path.replace(".", "_")


@dataclass(frozen=True, slots=True)
class _Change:
    """One LoRA's part in one parameter."""

    parameter: Tensor
    lora: Lora
    module: str
    is_bias: bool
    weight: float
    rank: int

    def delta(self) -> Tensor:
        part = self.lora.deltas[self.module]
        found = part.bias() if self.is_bias else part.weight(self.rank)
        if found is None or not fits(found, self.parameter):
            raise ValueError
        return found.reshape(self.parameter.shape).to(self.parameter.device) * self.weight


@dataclass(slots=True)
class AppliedLoras:
    """Which LoRAs a checkpoint's weights hold now, and the weights that they replaced."""

    active: tuple[Use, ...] = ()
    _layers: Layers | None = None
    _originals: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @torch.no_grad()
    def apply(self, pipeline: Any, checkpoint: str, uses: Sequence[Use]) -> None:
        """Makes the weights those of the checkpoint with exactly these LoRAs.

        Raises `RequestFault` for a LoRA of another architecture; the checkpoint is then as its file says.
        """
        wanted = tuple(use for use in uses if use.unet or use.text)
        if wanted == self.active:
            return
        self._layers = self._layers or Layers.of(pipeline)
        self.active = ()
        try:
            changes: dict[int, list[_Change]] = {}
            for use in wanted:
                for change in _changes(self._layers, use.load(), use, checkpoint):
                    changes.setdefault(id(change.parameter), []).append(change)
            self._restore(keep=changes.keys())
            for key, of_parameter in changes.items():
                self._change(key, of_parameter, checkpoint)
        except BaseException:
            self._restore()
            raise
        self.active = wanted

    def _restore(self, keep: Iterable[int] = ()) -> None:
        """Gives back what LoRAs replaced; the copies of `keep` stay, for what is changed next."""
        for parameter, original in self._originals.values():
            parameter.copy_(original)
        kept = set(keep)
        self._originals = {key: pair for key, pair in self._originals.items() if key in kept}

    def _change(self, key: int, changes: Sequence[_Change], checkpoint: str) -> None:
        parameter = changes[0].parameter
        if key not in self._originals:
            self._originals[key] = parameter, parameter.detach().clone()
        total = self._originals[key][1].float()
        for change in changes:
            try:
                total = total + change.delta()
            except (RuntimeError, ValueError, KeyError, IndexError) as error:
                if isinstance(error, torch.OutOfMemoryError) or "memory" in str(error):
                    raise
                raise _misfit(change.lora, change.module, checkpoint) from None
        parameter.copy_(total)


def _changes(layers: Layers, lora: Lora, use: Use, checkpoint: str) -> Iterable[_Change]:
    unknown = [module for module in lora.deltas if module not in layers.modules]
    # Old files for SD 2.x name a layer of the text encoder that is not used.
    missing = [module for module in unknown if "_te" not in module and "text_" not in module]
    if len(unknown) == len(lora.deltas) or len(missing) > UNKNOWN_SHARE * len(lora.deltas):
        raise _misfit(lora, (missing or unknown)[0], checkpoint)
    for module, delta in lora.deltas.items():
        part, target = layers.modules.get(module, ("", None))
        weight = use.unet if part == "unet" else use.text
        if target is None or weight == 0:
            continue
        for is_bias, parameter in ((False, target.weight), (True, getattr(target, "bias", None))):
            names = (
                {"diff_b", "b_norm"} & delta.parts.keys()
                if is_bias
                else delta.parts.keys() - {"diff_b", "b_norm"}
            )
            if parameter is not None and names:
                yield _Change(parameter, lora, module, is_bias, weight, use.rank)


def _misfit(lora: Lora, module: str, checkpoint: str) -> RequestFault:
    kinds = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}
    kind = kinds.get(lora.text_width or 0)
    made_for = f": it is made for {kind}" if kind else ""
    return RequestFault(
        f"LoRA {lora.name} does not fit checkpoint {checkpoint}{made_for} (layer {module[:120]})"
    )
