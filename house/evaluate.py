"""Measures a house checkpoint on the held-out prompts: JSON figures and a contact sheet."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from PIL import Image, ImageDraw

from house import architecture, shapes
from house.judge import Picture, Reading, read_picture
from house.shapes import Combination

STEPS = 20
BATCH = 20
SAMPLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "euler": (EulerDiscreteScheduler, {}),
    "dpm++ 2m karras": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "euler a": (EulerAncestralDiscreteScheduler, {}),
}
SEED_STRIDE = 1000  # keeps the pictures' own seeds of two rounds apart
SHEET_COLUMNS, SHEET_ZOOM, SHEET_MARGIN, SHEET_TEXT = 10, 2, 4, 28

Prompt = tuple[str, Combination]


@dataclass(frozen=True)
class Round:
    """One pass over the prompts: what was drawn and how the judge read it."""

    prompts: Sequence[Prompt]
    pictures: Sequence[Picture]
    readings: Sequence[Reading]

    def figures(self) -> dict[str, float]:
        """The share of prompts right in each attribute and in all three."""
        pairs = list(zip(self.readings, (what for _, what in self.prompts), strict=True))
        return {
            "foreground": float(np.mean([read.foreground == what.foreground for read, what in pairs])),
            "background": float(np.mean([read.background == what.background for read, what in pairs])),
            "shape": float(np.mean([read.shape == what.shape for read, what in pairs])),
            "all three": float(np.mean([read.agrees_with(what) for read, what in pairs])),
        }


def load_checkpoint(path: Path) -> Any:
    """The checkpoint as a pipeline, read from the single file with this package's configuration."""
    networks = architecture.build_vae(), architecture.build_text_encoder(), architecture.build_unet()
    with tempfile.TemporaryDirectory() as folder:
        architecture.assemble(*networks).save_pretrained(folder)
        pipeline = StableDiffusionPipeline.from_single_file(str(path), config=folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(memory_format=torch.channels_last)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def draw(pipeline: Any, prompts: Sequence[Prompt], sampler: str, guidance: float, seed: int) -> Round:
    """Draws every prompt once; each picture has a seed of its own."""
    kind, options = SAMPLERS[sampler]
    pipeline.scheduler = kind.from_config(architecture.build_scheduler().config, **options)
    pictures: list[Picture] = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        seeds = range(seed * SEED_STRIDE + start, seed * SEED_STRIDE + start + len(batch))
        drawn = pipeline(
            [text for text, _ in batch],
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            width=shapes.SIZE,
            height=shapes.SIZE,
            generator=[torch.Generator().manual_seed(number) for number in seeds],
            output_type="np",
        ).images
        pictures.extend((drawn * 255).round().astype(np.uint8))
    return Round(prompts, pictures, [read_picture(picture) for picture in pictures])


def write_contact_sheet(drawn: Round, path: Path) -> None:
    """All pictures with their subjects below; a subject in red is one that the judge read otherwise."""
    edge = shapes.SIZE * SHEET_ZOOM
    width, height = edge + 2 * SHEET_MARGIN, edge + SHEET_MARGIN + SHEET_TEXT
    rows = -(-len(drawn.pictures) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (picture, reading, (_, what)) in enumerate(
        zip(drawn.pictures, drawn.readings, drawn.prompts, strict=True)
    ):
        x = place % SHEET_COLUMNS * width + SHEET_MARGIN
        y = place // SHEET_COLUMNS * height + SHEET_MARGIN
        sheet.paste(Image.fromarray(picture).resize((edge, edge), Image.Resampling.NEAREST), (x, y))
        text = f"{what.foreground} {what.shape}\non {what.background}"
        colour = "black" if reading.agrees_with(what) else "red"
        pen.multiline_text((x, y + edge), text, fill=colour, spacing=0)
    sheet.save(path, optimize=True)


def grey_prompts() -> list[Prompt]:
    """The prompts without a background; training had these subjects, so they are reported by themselves."""
    article = {"orange": "an"}
    return [(f"{article.get(w.foreground, 'a')} {w.foreground} {w.shape}", w) for w in shapes.PLAIN]


def mean_figures(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each figure's mean over the rounds."""
    return {name: round(float(np.mean([one[name] for one in figures])), 4) for name in figures[0]}


def misreadings(drawn: Round) -> list[str]:
    """Each failed prompt with what the judge saw instead."""
    return [
        f"{text} -> {reading.foreground} {reading.shape} on {reading.background}"
        for (text, what), reading in zip(drawn.prompts, drawn.readings, strict=True)
        if not reading.agrees_with(what)
    ]


def evaluate(
    checkpoint: Path, samplers: Sequence[str], scales: Sequence[float], seeds: int, sheet: Path | None
) -> dict[str, Any]:
    """Figures of every round, their mean, and the grey prompts' mean."""
    pipeline, prompts, started = load_checkpoint(checkpoint), shapes.evaluation_prompts(), time.monotonic()
    rounds: list[dict[str, Any]] = []
    held_out, grey, failures = [], [], []
    for sampler in samplers:
        for guidance in scales:
            for seed in range(1, 1 + seeds):
                drawn = draw(pipeline, prompts, sampler, guidance, seed)
                if sheet and not rounds:
                    write_contact_sheet(drawn, sheet)
                held_out.append(drawn.figures())
                failures += misreadings(drawn)
                rounds.append({"sampler": sampler, "guidance": guidance, "seed": seed, **held_out[-1]})
                print(rounds[-1], file=sys.stderr, flush=True)
            grey.append(draw(pipeline, grey_prompts(), sampler, guidance, seed=0).figures())
    return {
        "checkpoint": checkpoint.name,
        "steps": STEPS,
        "prompts": len(prompts),
        "held out": mean_figures(held_out),
        "without a background": mean_figures(grey),
        "rounds": rounds,
        "failures": sorted(failures),
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--guidance", nargs="+", type=float, default=[7.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sheet", type=Path, help="the contact sheet to write")
    given = parser.parse_args()
    figures = evaluate(given.checkpoint, given.samplers, given.guidance, given.seeds, given.sheet)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
