"""Encodes the prompts of a batch for the UNet."""

from collections.abc import Sequence

import torch

from gpu_worker.architecture import XL_FAMILIES, Family
from gpu_worker.conditioning import Conditioning, Part, PictureConditioning, Text
from gpu_worker.errors import RequestFault
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan


def encode_prompts(
    checkpoint: LoadedCheckpoint, requests: Sequence[ImageRequest], plan: Plan
) -> Conditioning:
    """The conditioning of a batch, in the order of the requests."""
    pipeline = checkpoint.pipeline
    encoded = pipeline.encode_prompt(
        prompt=[request.prompt for request in requests],
        negative_prompt=[request.negative_prompt for request in requests],
        device=pipeline.unet.device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        clip_skip=_clip_skip(checkpoint, plan),
    )
    positive, negative, *pooled = encoded
    sizes, negative_sizes = size_ids(checkpoint, plan)
    pictures = []
    for index in range(len(requests)):
        texts = [
            Text(embeddings[index], pooled[which][index] if pooled else None)
            for which, embeddings in enumerate((positive, negative))
        ]
        parts = [Part.constant(text) for text in texts]
        pictures.append(PictureConditioning((parts[0],), parts[1], sizes, negative_sizes))
    return Conditioning(pictures)


def size_ids(checkpoint: LoadedCheckpoint, plan: Plan) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """SDXL's numbers beside a prompt and a negative prompt: sizes, and for its refiner a beauty wished for.

    The scores are the defaults of the WebUI's settings sdxl_refiner_high_aesthetic_score and …_low_….
    """
    if checkpoint.family not in XL_FAMILIES:
        return None, None
    size: list[float] = [plan.height, plan.width, 0, 0]
    is_refiner = checkpoint.family is Family.SDXL_REFINER
    ends: list[list[float]] = [[6.0], [2.5]] if is_refiner else [[plan.height, plan.width]] * 2
    rows = [size + end for end in ends]
    numbers = torch.tensor(rows, device=checkpoint.pipeline.unet.device, dtype=torch.float32)
    return numbers[0], numbers[1]


def _clip_skip(checkpoint: LoadedCheckpoint, plan: Plan) -> int | None:
    """WebUI's 1 means the last layer, diffusers' None; SDXL always uses its last but one."""
    if plan.clip_skip == 1 or checkpoint.family in XL_FAMILIES:
        return None
    layers = checkpoint.description.components["text_encoder"]["num_hidden_layers"]
    if plan.clip_skip > layers:
        raise RequestFault(
            f"CLIP_stop_at_last_layers must be at most {layers} for checkpoint {checkpoint.name}, not "
            f"{plan.clip_skip}"
        )
    return plan.clip_skip - 1
