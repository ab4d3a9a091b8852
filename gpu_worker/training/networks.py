"""The networks that are trained: a checkpoint's own, or LoRA layers beside frozen ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from gpu_worker.architecture import Family
from gpu_worker.errors import RequestFault
from gpu_worker.training.settings import Settings

UNET_LAYERS = [
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
]
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
ADAPTER = "default"
SAVED_AS = {"fp16": torch.float16, "bf16": torch.bfloat16, "float": torch.float32}


@dataclass(slots=True)
class Networks:
    """A pipeline under training, and which of its networks learn."""

    pipeline: Any
    family: Family
    settings: Settings
    base_metadata: dict[str, str] = field(default_factory=dict)  # the header's, of the file it came from

    @property
    def unet(self) -> Any:
        """The denoiser."""
        return self.pipeline.unet

    @property
    def text_encoders(self) -> list[Any]:
        """One, or SDXL's two."""
        second = getattr(self.pipeline, "text_encoder_2", None)
        return [self.pipeline.text_encoder] + ([second] if second is not None else [])

    def learners(self) -> list[tuple[str, Any]]:
        """(name, network) of those that learn."""
        found: list[tuple[str, Any]] = [("unet", self.unet)] if self.settings.train_unet else []
        if self.settings.train_text_encoder:
            names = ("text_encoder", "text_encoder_2")
            found += list(zip(names, self.text_encoders, strict=False))
        return found

    def parameters(self) -> list[dict[str, Any]]:
        """The optimizer's groups, each with its learning rate."""
        return [
            {
                "params": [parameter for parameter in network.parameters() if parameter.requires_grad],
                "lr": self.settings.rate_of("unet" if name == "unet" else "text_encoder"),
            }
            for name, network in self.learners()
        ]

    def learned(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor that learns, by a name that is the same after a restart."""
        for name, network in self.learners():
            for key, parameter in network.named_parameters():
                if parameter.requires_grad:
                    yield f"{name}.{key}", parameter


def prepare(
    pipeline: Any, family: Family, settings: Settings, metadata: dict[str, str] | None = None
) -> Networks:
    """Freezes what does not learn; adds LoRA layers, or lets the networks themselves learn."""
    networks = Networks(pipeline, family, settings, metadata or {})
    for network in (networks.unet, pipeline.vae, *networks.text_encoders):
        network.requires_grad_(False)
    for name, network in networks.learners():
        if settings.use_lora:
            _add_lora(network, UNET_LAYERS if name == "unet" else TEXT_LAYERS, settings)
        else:
            network.requires_grad_(True)
        if settings.gradient_checkpointing:
            _save_memory(network)
        network.train()
    if not any(True for _ in networks.learned()):
        raise RequestFault("the checkpoint has no layers that a LoRA can be added to")
    return networks


def _add_lora(network: Any, layers: list[str], settings: Settings) -> None:
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.scale,  # type: ignore[arg-type]  # peft divides it, whole or not
        lora_dropout=settings.dropout,
        target_modules=layers,
    )
    network.add_adapter(config, adapter_name=ADAPTER)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _save_memory(network: Any) -> None:
    if hasattr(network, "enable_gradient_checkpointing"):
        network.enable_gradient_checkpointing()
    else:
        network.gradient_checkpointing_enable()


def encode_text(networks: Networks, captions: list[str]) -> tuple[Tensor, Tensor | None]:
    """What the UNet attends to, [n, 77, width]; for SDXL also the pooled text, [n, width].

    Longer captions are cut at 77 tokens. The layer is the one that pictures are made with later: SD 1.x's
    last with its norm, or with `clip_skip` an earlier one; SDXL's last but one.
    """
    pipeline = networks.pipeline
    tokenizers = [pipeline.tokenizer, getattr(pipeline, "tokenizer_2", None)]
    found, pooled = [], None
    for tokenizer, encoder in zip(tokenizers, networks.text_encoders, strict=False):
        tokens = tokenizer(
            captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        )
        output = encoder(tokens.input_ids.to(encoder.device), output_hidden_states=True)
        if networks.family is Family.SDXL:
            found.append(output.hidden_states[-2 - networks.settings.clip_skip])
            pooled = output[0]
        elif networks.settings.clip_skip > 1:  # as the WebUI counts: 1 is the last layer
            layer = output.hidden_states[-networks.settings.clip_skip]
            found.append(_final_norm(encoder)(layer))
        else:
            found.append(output.last_hidden_state)
    return torch.cat(found, dim=-1), pooled if networks.family is Family.SDXL else None


def _final_norm(encoder: Any) -> Any:
    # transformers 5.6 dropped the model inside the model
    return getattr(encoder, "text_model", encoder).final_layer_norm
