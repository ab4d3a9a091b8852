"""Loads checked checkpoint and VAE files into diffusers, without network and without reading a file twice."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from gpu_worker import single_file_export as export
from gpu_worker.architecture import REFINER_OPEN_CLIP, XL_OPEN_CLIP, Family
from gpu_worker.device import Device, is_lost_device, is_out_of_memory
from gpu_worker.errors import MachineFault, RequestFault
from gpu_worker.model_configs import VAE, Shapes, vae_config
from gpu_worker.safetensors_header import Header, read_header
from gpu_worker.single_file import (
    PIPELINE_CLASSES,
    Description,
    inspect,
    refuse_refiner,
    says_its_prediction,
    write_config_folder,
)

TOKENIZER_FOLDER = Path(__file__).parent / "assets" / "clip_tokenizer"
SENTENCE_LENGTH = 300
MOST_COMPILED_VERSIONS = 128
VELOCITY_BELOW = -1.0
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")

# diffusers' classes are not typed; these names say what is meant.
Pipeline: TypeAlias = Any
Vae: TypeAlias = Any

diffusers_logging.set_verbosity_error()
diffusers_logging.disable_progress_bar()


@cache
def tokenizer(pad_token: str | None = None) -> CLIPTokenizer:
    """CLIP's tokenizer, which pads with its end token; SDXL's second encoder wants ``!``."""
    if pad_token is None:
        return CLIPTokenizer.from_pretrained(TOKENIZER_FOLDER, local_files_only=True)
    return CLIPTokenizer.from_pretrained(TOKENIZER_FOLDER, pad_token=pad_token, local_files_only=True)


def load_checkpoint(
    path: Path,
    name: str,
    device: Device,
    make_room: Callable[[int], None] = lambda _bytes: None,
    *,
    may_refine: bool = False,
) -> tuple[Pipeline, Description]:
    """Loads the single file at `path` in the device's precision.

    `make_room` is told the bytes needed before any memory is taken. Raises `RequestFault` when the file is at
    fault.
    """
    description = inspect(path, name)
    if not may_refine:
        refuse_refiner(description)
    needed = description.parameters * device.dtype.itemsize
    if needed > device.memory_bytes:
        raise RequestFault(
            f"checkpoint {name} needs {needed / 1e9:.1f} GB in memory, this worker has "
            f"{device.memory_bytes / 1e9:.1f}"
        )
    make_room(needed)
    with _file_at_fault(name):
        _check_against_file(_expected_tensors(description), description.header, name)
        pipeline = _from_single_file(path, description, device)
        for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
            _check_complete(getattr(pipeline, component, None), component, name)
        pipeline = _place(pipeline, device)
        if description.family is Family.SD2 and not says_its_prediction(description.header):
            description = _asked_what_it_predicts(pipeline.unet, description)
        return pipeline, description


def _asked_what_it_predicts(unet: Any, description: Description) -> Description:
    """The description with ``v_prediction`` where the UNet answers to full noise as such models do.

    Shown a grey of 0.5 at the noisiest step, a model of noise repeats it, and one of velocity gives about the
    opposite of the picture: ``is_using_v_parameterization_for_sd2`` in modules/sd_models_config.py of the
    WebUI, with its bound.
    """
    grey = torch.full((1, 4, 8, 8), 0.5, device=unet.device, dtype=unet.dtype)
    words = torch.zeros(1, 2, unet.config.cross_attention_dim, device=unet.device, dtype=unet.dtype)
    if description.architecture.in_channels != grey.shape[1]:
        return description
    with torch.inference_mode():
        answer = unet(grey, 999, encoder_hidden_states=words, return_dict=False)[0]
    if float((answer - grey).float().mean()) >= VELOCITY_BELOW:
        return description
    scheduler = description.components["scheduler"] | {"prediction_type": "v_prediction"}
    return replace(description, components={**description.components, "scheduler": scheduler})


def load_vae(path: Path, name: str, family: Family, device: Device) -> Vae:
    """Loads a VAE file for checkpoints of `family`; raises `RequestFault` when the file is at fault."""
    header = read_header(path, name)
    prefix = VAE if any(key.startswith(VAE) for key in header.tensors) else ""
    config = vae_config(Shapes(header, name), family, sample_size=64, prefix=prefix)
    with _file_at_fault(name):
        with init_empty_weights():
            empty = AutoencoderKL.from_config(config)
        expected = {prefix + key.removeprefix(VAE): t for key, t in export.convert_vae(empty).items()}
        _check_against_file(expected, header, name)
        with tempfile.TemporaryDirectory(prefix="sdfleet-vae-") as folder:
            (Path(folder) / "config.json").write_text(empty.to_json_string(), encoding="utf-8")
            vae = AutoencoderKL.from_single_file(
                str(path), config=folder, torch_dtype=device.vae_dtype, local_files_only=True
            )
        _check_complete(vae, "vae", name)
        return vae.to(device.torch_device, memory_format=torch.channels_last)


@contextmanager
def _file_at_fault(name: str) -> Iterator[None]:
    """Turns what the libraries raise about a file's content into a sentence; memory and GPU stay apart."""
    try:
        yield
    except (RequestFault, OSError):
        raise
    except Exception as error:
        if is_lost_device(error):
            raise MachineFault(f"the GPU failed while loading checkpoint {name}") from error
        if is_out_of_memory(error):
            raise RequestFault(f"checkpoint {name} does not fit into this worker's memory") from error
        reason = str(error).strip().split("\n")[0][:SENTENCE_LENGTH]
        raise RequestFault(f"checkpoint {name} cannot be loaded: {reason}") from error


def _expected_tensors(description: Description) -> dict[str, torch.Tensor]:
    """The tensors that the derived configurations need, by their names in the file, without any memory."""
    components = description.components
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(components["unet"])
        vae = AutoencoderKL.from_config(components["vae"])
        texts = {name: CLIPTextConfig(**components[name]) for name in TEXT_ENCODERS if name in components}
        expected = export.convert_unet(unet) | export.convert_vae(vae)
        if description.family is Family.SD1:
            first = CLIPTextModel(texts["text_encoder"])
            expected |= export.convert_clip_l(first, export.SD1_TEXT_PREFIX)
        if description.family is Family.SDXL:
            first = CLIPTextModel(texts["text_encoder"])
            expected |= export.convert_clip_l(first, export.SDXL_TEXT_PREFIX)
        if description.family in (Family.SDXL, Family.SDXL_REFINER):
            second = CLIPTextModelWithProjection(texts["text_encoder_2"])
            prefix = XL_OPEN_CLIP if description.family is Family.SDXL else REFINER_OPEN_CLIP
            expected |= export.convert_open_clip(second, prefix)
    return expected


def _check_against_file(expected: Mapping[str, torch.Tensor], header: Header, name: str) -> None:
    missing = [key for key in expected if key not in header.tensors]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RequestFault(f'checkpoint {name} lacks the tensor "{missing[0]}"{others}')
    for key, tensor in expected.items():
        wanted, found = list(tensor.shape), list(header.tensors[key].shape)
        # Old files hold the VAE's attention as 1x1 convolutions, newer ones as matrices.
        if wanted != found and [n for n in wanted if n != 1] != [n for n in found if n != 1]:
            raise RequestFault(
                f'checkpoint {name} cannot be used: tensor "{key}" has shape {found}, {wanted} is needed'
            )


def _from_single_file(path: Path, description: Description, device: Device) -> Pipeline:
    is_xl = description.family in (Family.SDXL, Family.SDXL_REFINER)
    pipeline_class = getattr(diffusers, PIPELINE_CLASSES[description.family])
    objects: dict[str, Any] = {
        "tokenizer": tokenizer() if description.family is not Family.SD2 else tokenizer("!"),
        "scheduler": DDIMScheduler.from_config(description.components["scheduler"]),
    }
    if is_xl:
        objects |= {"tokenizer_2": tokenizer("!"), "add_watermarker": False}
    if description.family is Family.SDXL_REFINER:
        objects |= {"tokenizer": None, "text_encoder": None, "requires_aesthetics_score": True}
    with tempfile.TemporaryDirectory(prefix="sdfleet-config-") as folder:
        write_config_folder(description, Path(folder))
        return pipeline_class.from_single_file(
            str(path), config=folder, torch_dtype=device.dtype, local_files_only=True, **objects
        )


def _check_complete(model: torch.nn.Module | None, component: str, name: str) -> None:
    """A parameter that the file did not fill stays on torch's meta device, silently so for text encoders."""
    if model is None:
        return
    for key, parameter in model.named_parameters():
        if parameter.is_meta:
            raise RequestFault(f'checkpoint {name} lacks the tensor "{key}" of its {component}')


def _place(pipeline: Pipeline, device: Device) -> Pipeline:
    """Moves a pipeline to the device; ``channels_last`` is the fastest layout on CPUs and on tensor cores."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device.torch_device)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(dtype=device.vae_dtype, memory_format=torch.channels_last)
    for component in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        if component is not None:
            component.requires_grad_(False)
    if device.is_compiled:
        _compile(pipeline.unet)
    return pipeline


def _compile(unet: torch.nn.Module) -> None:
    """Compiles the transformer blocks, which repeat: minutes less than the whole UNet, nearly as fast.

    They are compiled at their first use, and again for other sizes; where the compiler fails, PyTorch goes on
    without it.
    """
    torch._dynamo.config.suppress_errors = True
    # All blocks share one piece of code, each width and size of them is a version of it: past the usual eight
    # PyTorch would quietly go on uncompiled.
    torch._dynamo.config.recompile_limit = MOST_COMPILED_VERSIONS
    for block in unet.modules():
        if isinstance(block, BasicTransformerBlock):
            block.compile()
