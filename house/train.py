"""Trains the house checkpoint; run again with the same state folder to continue after an interruption."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from gpu_worker.single_file_export import save_single_file
from house import architecture, stages
from house.data import Captioner, Pictures
from house.run_state import Run

DEFAULT_MINUTES = 40.0
MASKS = 6000


@dataclass(frozen=True)
class Plan:
    """How many steps each stage takes."""

    vae: int
    text: int
    unet: int

    @classmethod
    def for_minutes(cls, minutes: float) -> "Plan":
        """Steps that fill about ``minutes`` on two idle cores; counting steps makes a run reproducible."""
        share = minutes / DEFAULT_MINUTES
        return cls(vae=round(2500 * share), text=round(300 * share), unet=round(2900 * share))


def train(run: Run, plan: Plan) -> None:
    """Runs the stages that this run has not finished yet."""
    pictures, captioner = Pictures(MASKS, seed=0), Captioner()
    stages.freeze_unknown_words(run.networks["text_encoder"], captioner.known_ids)
    run.log(f"{plan}, {len(captioner.known_ids)} known tokens, device {run.device}")
    if "vae" not in run.done:
        stages.train_vae(run, pictures, plan.vae)
    run.networks["vae"].eval().requires_grad_(False)
    if "text" not in run.done:
        stages.train_text_encoder(run, captioner, plan.text)
    if "unet" not in run.done:
        stages.train_unet(run, captioner, pictures, plan.unet)


def export(run: Run, out: Path) -> None:
    """Writes the averaged networks as one fp16 file in Stable Diffusion 1.x's original layout."""
    networks = run.networks
    pipeline = architecture.assemble(networks["vae"], networks["text_encoder_ema"], networks["unet_ema"])
    save_single_file(pipeline, out, metadata=architecture.METADATA)
    run.log(f"wrote {out}, {out.stat().st_size / 1e6:.1f} MB, stages done {run.done}, step {run.step}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="length on two idle cores")
    parser.add_argument("--state", type=Path, required=True, help="folder of the run's state")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write")
    parser.add_argument("--export-only", action="store_true", help="train nothing, write the saved average")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = Run(arguments.state, device)
    if not arguments.export_only:
        train(run, Plan.for_minutes(arguments.minutes))
    export(run, arguments.out)


if __name__ == "__main__":
    main()
