"""Inspects a single-file checkpoint and writes the folder that diffusers needs to load it offline."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gpu_worker.architecture import UNET, Architecture, Family, detect
from gpu_worker.errors import RequestFault
from gpu_worker.model_configs import Shapes, text_encoder_configs, unet_config, vae_config
from gpu_worker.safetensors_header import Header, read_header

PIPELINE_CLASSES = {
    Family.SD1: "StableDiffusionPipeline",
    Family.SD2: "StableDiffusionPipeline",
    Family.SDXL: "StableDiffusionXLPipeline",
    Family.SDXL_REFINER: "StableDiffusionXLImg2ImgPipeline",
}
SAMPLE_SIZES = {Family.SD1: 64, Family.SD2: 64, Family.SDXL: 128, Family.SDXL_REFINER: 128}
# Values of the published scheduler configurations, the same for all these families.
SCHEDULER_CONFIG = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
V_PREDICTION_PROBE = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
V_PREDICTION_DEVIATION = 0.09
V_ARCHITECTURE = "stable-diffusion-v2-768-v"
# Models trained in the noise of https://arxiv.org/abs/2206.00364, which none of the samplers here makes.
EDM_KEYS = ("edm_mean", "edm_vpred.sigma_max")


@dataclass(frozen=True, slots=True)
class Description:
    """What a checkpoint file is: family, number of parameters and the configuration of every component."""

    name: str
    architecture: Architecture
    parameters: int
    components: dict[str, dict[str, Any]]
    header: Header

    @property
    def family(self) -> Family:
        """The architecture's name."""
        return self.architecture.family


def inspect(path: Path, name: str) -> Description:
    """Reads the header of the file at `path` and derives every configuration.

    Raises `RequestFault` for a file that is damaged, no checkpoint, or of a kind that this worker does not
    run.
    """
    header = read_header(path, name)
    architecture = detect(header, name)
    _refuse_other_tasks(architecture, name)
    _refuse_other_noise(header, name)
    shapes = Shapes(header, name)
    family = architecture.family
    sample_size = shapes.metadata_number("sdfleet.sample_size", SAMPLE_SIZES[family])
    components = {
        "unet": unet_config(shapes, architecture, sample_size),
        "vae": vae_config(shapes, family, sample_size),
        **text_encoder_configs(shapes, family),
        "scheduler": SCHEDULER_CONFIG | _prediction(path, header, family),
    }
    parameters = sum(math.prod(entry.shape) for entry in header.tensors.values())
    return Description(name, architecture, parameters, components, header)


def refuse_refiner(description: Description) -> None:
    """Fails for a checkpoint that can only go on with what another has begun."""
    if description.family is Family.SDXL_REFINER:
        raise RequestFault(
            f"checkpoint {description.name} is an SDXL refiner, which cannot make pictures from text alone: "
            "name it in refiner_checkpoint"
        )


def _refuse_other_tasks(architecture: Architecture, name: str) -> None:
    if architecture.in_channels not in (4, 9):
        raise RequestFault(
            f"checkpoint {name} ({architecture.family}) takes {architecture.in_channels} channels: "
            "it cannot make pictures from text alone"
        )


def _refuse_other_noise(header: Header, name: str) -> None:
    if any(key in header.tensors for key in EDM_KEYS):
        raise RequestFault(
            f"checkpoint {name} was trained with EDM's noise (as CosXL and Playground 2.5 were), which this "
            "worker does not do"
        )


def says_its_prediction(header: Header) -> bool:
    """Whether the file itself tells what its UNet predicts, or lets it be told without running it."""
    return bool(_stated(header)) or "v_pred" in header.tensors or V_PREDICTION_PROBE in header.tensors


def _stated(header: Header) -> str:
    """What the metadata says; names: https://github.com/Stability-AI/ModelSpec."""
    metadata = header.metadata
    stated = metadata.get("modelspec.prediction_type") or metadata.get("sdfleet.prediction_type", "")
    if not stated and metadata.get("modelspec.architecture", "").startswith(V_ARCHITECTURE):
        return "v"
    return stated


def _prediction(path: Path, header: Header, family: Family) -> dict[str, Any]:
    """Whether the UNet predicts noise or velocity, which no shape tells.

    Sources: the keys ``v_pred`` and ``ztsnr`` and, for SD 2.x, the spread of one bias, are how ComfyUI
    (``comfy/supported_models.py``) tells them apart.
    """
    stated = _stated(header)
    velocity = stated.startswith("v") or "v_pred" in header.tensors
    if family is Family.SD2 and not stated and V_PREDICTION_PROBE in header.tensors:
        velocity = _deviation(path, V_PREDICTION_PROBE) > V_PREDICTION_DEVIATION
    return {
        "prediction_type": "v_prediction" if velocity else "epsilon",
        "rescale_betas_zero_snr": "ztsnr" in header.tensors,
    }


def _deviation(path: Path, tensor: str) -> float:
    try:
        with safe_open(path, framework="pt") as file:
            return float(file.get_tensor(tensor).float().std(unbiased=False))
    except (SafetensorError, RuntimeError):
        return 0.0


def write_config_folder(description: Description, folder: Path) -> None:
    """Writes ``model_index.json`` and the components' configurations for ``from_single_file(config=folder)``.

    Tokenizers are not written: they are the same for every checkpoint and passed as objects.
    """
    index: dict[str, Any] = {
        "_class_name": PIPELINE_CLASSES[description.family],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "feature_extractor": [None, None],
    }
    for component in ("text_encoder", "text_encoder_2"):
        if component in description.components:
            architectures = description.components[component]["architectures"]
            index[component] = ["transformers", architectures[0]]
    if description.family is Family.SDXL_REFINER:
        index |= {"tokenizer": [None, None], "text_encoder": [None, None], "requires_aesthetics_score": True}
        index |= {"tokenizer_2": ["transformers", "CLIPTokenizer"], "image_encoder": [None, None]}
    elif description.family is Family.SDXL:
        index |= {"tokenizer_2": ["transformers", "CLIPTokenizer"], "image_encoder": [None, None]}
    else:
        index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    for component, config in description.components.items():
        file_name = "scheduler_config.json" if component == "scheduler" else "config.json"
        (folder / component).mkdir()
        (folder / component / file_name).write_text(json.dumps(config), encoding="utf-8")
