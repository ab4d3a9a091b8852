"""A bare diffusers loop on the house checkpoint: what the platform's throughput is compared with."""

import argparse
import time
from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler

from gpu_worker.device import choose_device
from gpu_worker.loading import load_checkpoint

WARM_UP = 3


def main() -> None:
    """Make so many pictures one after the other, and print the seconds that took."""
    parser = argparse.ArgumentParser(prog="python -m bench.bare_loop", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("pictures", type=int)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    pipeline, _ = load_checkpoint(options.checkpoint, options.checkpoint.name, choose_device())
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)

    def picture(seed: int) -> None:
        pipeline(
            "a red circle on a white background",
            negative_prompt="",
            num_inference_steps=options.steps,
            guidance_scale=7.0,
            width=options.size,
            height=options.size,
            generator=torch.Generator().manual_seed(seed),
        )

    for seed in range(WARM_UP):
        picture(seed)
    began = time.perf_counter()
    for seed in range(options.pictures):
        picture(seed)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main()
