"""Loads ControlNet files, in the original layout or in diffusers', for the checkpoint that they hold."""

from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import ControlNetModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors.torch import load_file

from gpu_worker.device import is_out_of_memory
from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.jobs import ModelFile
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.safetensors_header import read_header
from gpu_worker.tasks import TaskContext

CONTROLNET_TYPE = "ControlNet"
HINT = "input_hint_block"
EMBEDDING = "controlnet_cond_embedding"
# How a file that is no ControlNet gives itself away.
OTHERS = {
    "lora_controlnet": "a Control-LoRA, which this worker does not run",
    "adapter.body": "a T2I-Adapter, which this worker does not run",
    "body.0.resnets": "a T2I-Adapter, which this worker does not run",
    "ip_adapter": "an IP-Adapter, which this worker does not run",
}


def load_controlnet(context: TaskContext, file: ModelFile, checkpoint: LoadedCheckpoint) -> Any:
    """diffusers' ``ControlNetModel``, from memory where it was used before; raises `RequestFault`."""
    device = context.memory.device

    def load(stored: StoredFile) -> tuple[Any, int]:
        _refuse_others(stored, file.name)
        tensors = load_file(stored.path)
        unet = checkpoint.pipeline.unet
        try:
            model = _empty(unet, tensors)
            model.load_state_dict(_converted(tensors, model), strict=True, assign=True)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise RequestFault(
                f"ControlNet {file.name} does not fit checkpoint {checkpoint.name} ({checkpoint.family}): "
                f"{reason}"
            ) from error
        model.requires_grad_(False).eval()
        model.to(device.torch_device, dtype=device.dtype, memory_format=torch.channels_last)
        size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        return model, size

    # The file does not tell all that its network is; the checkpoint's UNet does.
    kind = f"{CONTROLNET_TYPE}:{checkpoint.family}:{checkpoint.pipeline.unet.config.block_out_channels}"
    return context.memory.other(kind, file, context.open_file, load)


def _refuse_others(stored: StoredFile, name: str) -> None:
    header = read_header(stored.path, name)
    for part, meaning in OTHERS.items():
        if any(part in key for key in header.tensors):
            raise RequestFault(f"{name} is no ControlNet: it looks like {meaning}")
    if not any(HINT in key or EMBEDDING in key for key in header.tensors):
        first = next(iter(header.tensors))
        raise RequestFault(f'{name} is no ControlNet: its first tensor is "{first[:100]}"')


def _empty(unet: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """A network like the encoder of `unet`, with the hint's channels as in the file."""
    widths = [
        tensor.shape[0]
        for key, tensor in sorted(tensors.items(), key=lambda item: _place(item[0]))
        if (HINT in key or EMBEDDING in key) and key.endswith(".weight")
    ]
    # conv_in, then two for each step of the hint, then conv_out: of each pair the first keeps its width.
    channels = (widths[0], *widths[2:-1:2])
    entry = next(
        (
            tensors[key]
            for key in tensors
            if key.endswith(("input_blocks.0.0.weight", "conv_in.weight")) and EMBEDDING not in key
        ),
        None,
    )
    with init_empty_weights():
        model = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=channels, load_weights_from_unet=False
        )
        # With inpainting checkpoints the UNet has more channels than its ControlNets.
        if entry is not None and entry.shape[1] != model.config.in_channels:
            model = ControlNetModel.from_config(model.config, in_channels=entry.shape[1])
        return model


def _place(key: str) -> tuple[int, int]:
    """The order of the hint's convolutions in either layout."""
    numbers = [int(part) for part in key.split(".") if part.isdigit()]
    ends = 1 if "conv_out" in key else -1 if "conv_in" in key else 0
    return ends, numbers[0] if numbers else 0


def _converted(tensors: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    converted = convert_controlnet_checkpoint(tensors, model.config)
    # diffusers' converter leaves SDXL's conditioning out.
    for old, new in {
        "label_emb.0.0": "add_embedding.linear_1",
        "label_emb.0.2": "add_embedding.linear_2",
    }.items():
        for part in ("weight", "bias"):
            found = tensors.get(f"control_model.{old}.{part}", tensors.get(f"{old}.{part}"))
            if found is not None:
                converted[f"{new}.{part}"] = found
    missing = [key for key, tensor in converted.items() if tensor is None]
    if missing:
        raise RequestFault(f'the tensor of "{missing[0]}" is missing')
    return dict(converted)
