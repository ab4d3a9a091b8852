"""What is said about a training in the header of its result."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from gpu_worker.architecture import Family
from gpu_worker.files import StoredFile
from gpu_worker.training.examples import Example
from gpu_worker.training.loading import default_size
from gpu_worker.training.networks import Networks
from gpu_worker.training.trainer import Trainer
from gpu_worker.training.work import Work

ARCHITECTURES = {
    Family.SD1: "stable-diffusion-v1",
    Family.SD2: "stable-diffusion-v2",
    Family.SDXL: "stable-diffusion-xl-v1-base",
}
MOST_CAPTIONS = 200


def facts_of(
    work: Work,
    networks: Networks,
    trainer: Trainer,
    examples: Sequence[Example],
    base: tuple[str, StoredFile],
    began: float,
) -> dict[str, Any]:
    """kohya's `ss_…` and Stability AI's `modelspec.…` names; None values are left out."""
    settings, order = trainer.settings, trainer.order
    width, height = settings.resolution or default_size(networks)
    captions = Counter(one.caption for one in examples if not one.is_class)
    architecture = ARCHITECTURES[networks.family] + ("/lora" if settings.use_lora else "")
    return {
        "ss_session_id": work.id,
        "ss_training_started_at": str(began),
        "ss_training_finished_at": str(time.time()),
        "ss_output_name": work.result_name.removesuffix(".safetensors"),
        "ss_sd_model_name": base[0],
        "ss_new_sd_model_hash": base[1].sha256,
        "ss_sd_model_hash": base[1].short_hash,
        "ss_num_train_images": str(sum(not one.is_class for one in examples) * settings.repeats),
        "ss_num_reg_images": str(sum(one.is_class for one in examples)),
        "ss_num_batches_per_epoch": str(order.per_epoch),
        "ss_num_epochs": str(-(-trainer.learning.step * settings.accumulation // order.per_epoch)),
        "ss_batch_size_per_device": str(settings.batch_size),
        "ss_max_train_steps": str(order.total_steps),
        "ss_steps": str(trainer.learning.step),
        "ss_resolution": f"({width}, {height})",
        "ss_enable_bucket": str(settings.bucketing),
        "ss_tag_frequency": {"captions": dict(captions.most_common(MOST_CAPTIONS))},
        "modelspec.architecture": architecture,
        "modelspec.title": work.result_name.removesuffix(".safetensors"),
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
