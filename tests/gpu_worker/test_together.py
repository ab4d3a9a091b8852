"""Several jobs in shared batches: each gets the picture that it gets alone, and no end is another's."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gpu_worker import text_to_image
from gpu_worker.errors import Cancelled, MachineFault, Passing, RequestFault
from gpu_worker.pipelines import ModelMemory
from gpu_worker.tasks import TaskContext, TaskResult
from gpu_worker.text_to_image import PictureTask
from gpu_worker.together import Outcome, PictureJob, make_together
from house import shapes
from tests.gpu_worker import house
from tests.gpu_worker.contexts import Steps, context, encoded

TASKS = {"txt2img": text_to_image.run, "img2img": text_to_image.run_from_pictures}
MANY = 16 * 64 * 64
# docs/generation.md states it.
TOLERANCE = 1
COLOURS = ("red", "green", "blue", "yellow", "red", "green", "blue", "yellow")


class Batches(Steps):
    """Counts the pictures of each batch, and may end its job at a step."""

    def __init__(self, ends: Mapping[int, Exception] | None = None) -> None:
        super().__init__()
        self.ends = dict(ends or {})

    def step(self, step: int, finished: int, batch: int) -> None:
        super().step(step, finished, batch)
        if reason := self.ends.pop(step, None):
            raise reason


def prepared(
    memory: ModelMemory,
    task: str = "txt2img",
    models: Mapping[str, list[Path]] | None = None,
    progress: Batches | None = None,
    **body: Any,
) -> PictureJob:
    files = {"Stable-diffusion": [house.CHECKPOINT], **(models or {})}
    work = context(memory.device, task, house.SMALL | {"steps": 6} | body, files, memory)
    work = replace(work, progress=progress or Batches())
    running: PictureTask = TASKS[task]
    prepared = running.prepare(work)
    assert isinstance(prepared, PictureJob)
    return prepared


def outcomes(jobs: list[PictureJob], most: int = MANY) -> list[Outcome]:
    ended = dict(make_together(jobs, most))
    assert len(ended) == len(jobs)
    return [ended[job] for job in jobs]


def pictures(outcome: Outcome) -> list[Image.Image]:
    if isinstance(outcome, Exception):
        raise outcome
    return [picture.image for picture in outcome.pictures]


def rows_seen(memory: ModelMemory, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures the UNet is asked for at once (each counts twice: with and without prompt)."""
    work: TaskContext = prepared(memory).context
    unet = memory.checkpoint(work.job.models[0], work.open_file).pipeline.unet
    forward, seen = unet.forward, []

    def watched(sample: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        seen.append(sample.shape[0] // 2)
        return forward(sample, *arguments, **options)

    monkeypatch.setattr(unet, "forward", watched)
    return seen


def same(one: Image.Image, other: Image.Image) -> bool:
    return bool(np.abs(house.pixels(one) - house.pixels(other)).max() <= TOLERANCE)


def painted(colour: str, place: int) -> str:
    return encoded(Image.fromarray(shapes.paint(shapes.draw_mask("circle", place, 32, 15), colour, "white")))


def masked(left: int) -> str:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (left, 8, 64, 56))
    return encoded(mask)


def words(number: int) -> dict[str, Any]:
    return {"prompt": f"a {COLOURS[number]} square on a white background", "seed": 40 + number}


def mixed(number: int) -> dict[str, Any]:
    """img2img of different pictures, with and without masks, whole and in part, with every fill mode."""
    body = {**words(number), "denoising_strength": 0.75, "init_images": [painted("red", 20 + number)]}
    if number % 2:
        body |= {"mask": masked(16 + number), "inpainting_fill": number // 2, "inpaint_full_res": number > 4}
    return body


@pytest.mark.parametrize(
    ("task", "body", "more"),
    [
        ("txt2img", words, {}),
        ("txt2img", words, {"sampler_name": "Euler a"}),
        ("txt2img", words, {"sampler_name": "DPM++ SDE", "tiling": True}),
        ("txt2img", words, {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.6}),
        ("txt2img", words, {"enable_hr": True, "hr_upscaler": "Lanczos", "hr_prompt": "a red square"}),
        ("img2img", mixed, {}),
        ("img2img", mixed, {"sampler_name": "Euler a", "initial_noise_multiplier": 1.1}),
    ],
)
def test_a_batch_of_eight_equals_eight_alone(
    memory: ModelMemory,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    body: Callable[[int], dict[str, Any]],
    more: dict[str, Any],
) -> None:
    seen = rows_seen(memory, monkeypatch)
    together = outcomes([prepared(memory, task, **body(n), **more) for n in range(8)], 8 * 128 * 128)
    assert set(seen) == {8}
    for number, outcome in enumerate(together):
        (alone,) = outcomes([prepared(memory, task, **body(number), **more)])
        assert isinstance(outcome, TaskResult)
        assert isinstance(alone, TaskResult)
        assert outcome.pictures[0].infotext == alone.pictures[0].infotext
        assert same(outcome.pictures[0].image, alone.pictures[0].image)


def test_an_inpainting_checkpoint_sees_each_jobs_own_mask(memory: ModelMemory, tmp_path: Path) -> None:
    from gpu_worker.single_file_export import save_single_file
    from tests.gpu_worker import tiny

    pipeline = tiny.sd1_pipeline()
    pipeline.unet = tiny.unet(in_channels=9)
    path = tmp_path / "inpainting.safetensors"
    save_single_file(pipeline, path, dtype=torch.float16, metadata=tiny.METADATA)
    models = {"Stable-diffusion": [path]}
    together = outcomes([prepared(memory, "img2img", models, **mixed(n)) for n in range(4)])
    for number, outcome in enumerate(together):
        (alone,) = outcomes([prepared(memory, "img2img", models, **mixed(number))])
        assert same(pictures(outcome)[0], pictures(alone)[0])


def test_several_pictures_of_several_jobs_keep_their_places(memory: ModelMemory) -> None:
    bodies = [words(0) | {"batch_size": 3}, words(1) | {"n_iter": 3}, words(2)]
    jobs = [prepared(memory, **body) for body in bodies]
    for outcome, body in zip(outcomes(jobs), bodies, strict=True):
        made = pictures(outcome)
        assert len(made) == body.get("batch_size", 1) * body.get("n_iter", 1)
        for place, picture in enumerate(made):
            single = body | {"seed": body["seed"] + place, "batch_size": 1, "n_iter": 1}
            assert same(picture, pictures(outcomes([prepared(memory, **single)])[0])[0])


def test_a_batch_has_no_more_pixels_than_are_allowed(
    memory: ModelMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = rows_seen(memory, monkeypatch)
    first = prepared(memory, **words(0), batch_size=7)
    jobs = [first, *(prepared(memory, **words(n)) for n in (1, 2))]
    assert all(isinstance(outcome, TaskResult) for outcome in outcomes(jobs, most=4 * 64 * 64))
    assert [seen[at] for at in range(0, len(seen), 6)] == [4, 4, 1]
    assert isinstance(first.context.progress, Batches)
    assert [report for report in first.context.progress.steps if report[0] == 6] == [(6, 0, 4), (6, 4, 3)]


def test_jobs_that_differ_are_not_mixed(memory: ModelMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = rows_seen(memory, monkeypatch)
    bodies: list[dict[str, Any]] = [
        {},
        {"cfg_scale": 6},
        {"sampler_name": "Heun"},
        {"tiling": True},
        {"steps": 5},
    ]
    jobs = [prepared(memory, **words(n), **body) for n, body in enumerate(bodies)]
    assert len({job.key for job in jobs}) == len(jobs)
    outcomes(jobs)
    assert set(seen) == {1}


@pytest.mark.parametrize("reason", [Cancelled("job"), Passing("the time is over"), RequestFault("too many")])
def test_a_job_that_is_stopped_harms_no_other(memory: ModelMemory, reason: Exception) -> None:
    watches = [Batches(), Batches({3: reason}), Batches()]
    jobs = [prepared(memory, progress=watch, **words(n), n_iter=2) for n, watch in enumerate(watches)]
    ended = outcomes(jobs)
    assert ended[1] is reason
    for number in (0, 2):
        alone = prepared(memory, **words(number), n_iter=2)
        for one, other in zip(pictures(ended[number]), pictures(outcomes([alone])[0]), strict=True):
            assert same(one, other)
    # It made no further step in its second batch.
    assert max(finished for _, finished, _ in watches[1].steps) == 0


def test_a_batch_that_nobody_wants_stops(memory: ModelMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = rows_seen(memory, monkeypatch)
    watches = [Batches({2: Cancelled("a")}), Batches({4: Cancelled("b")})]
    ended = outcomes([prepared(memory, progress=watch, **words(n)) for n, watch in enumerate(watches)])
    assert all(isinstance(outcome, Cancelled) for outcome in ended)
    assert len(seen) == 4


def test_a_failure_of_one_is_found_and_ends_no_other(
    memory: ModelMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture's noise holds what is no number: its job alone is told so."""
    from gpu_worker import generation

    draw = generation.sample

    def spoiled(checkpoint: Any, vae: Any, requests: Any, *arguments: Any) -> torch.Tensor:
        latents = draw(checkpoint, vae, requests, *arguments)
        for place, request in enumerate(requests):
            if request.seed == 41:
                latents[place] = float("nan")
        return latents

    monkeypatch.setattr(generation, "sample", spoiled)
    ended = outcomes([prepared(memory, **words(n)) for n in range(3)])
    assert isinstance(ended[1], RequestFault)
    assert "not numbers" in str(ended[1])
    assert [isinstance(outcome, TaskResult) for outcome in ended] == [True, False, True]


def test_memory_that_ends_halves_the_shared_batch(
    memory: ModelMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outcomes([prepared(memory, **words(n)) for n in range(5)])
    work = prepared(memory).context
    unet = memory.checkpoint(work.job.models[0], work.open_file).pipeline.unet
    forward, most = unet.forward, 2

    def limited(sample: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if sample.shape[0] > 2 * most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(sample, *arguments, **options)

    monkeypatch.setattr(unet, "forward", limited)
    for one, other in zip(whole, outcomes([prepared(memory, **words(n)) for n in range(5)]), strict=True):
        assert same(pictures(one)[0], pictures(other)[0])
    most = 0
    ended = outcomes([prepared(memory, **words(n)) for n in range(2)])
    assert all("does not fit" in str(outcome) for outcome in ended)


def test_a_lost_gpu_ends_the_whole(memory: ModelMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    work = prepared(memory).context
    unet = memory.checkpoint(work.job.models[0], work.open_file).pipeline.unet

    def lost(*_arguments: Any, **_options: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(unet, "forward", lost)
    with pytest.raises(MachineFault):
        outcomes([prepared(memory, **words(n)) for n in range(2)])


def test_a_job_that_is_dropped_while_models_load_leaves_it_to_the_next(memory: ModelMemory) -> None:
    first, second = prepared(memory, **words(0)), prepared(memory, **words(1))

    def dropped(_file: Any) -> Any:
        raise Cancelled("job")

    first = replace(first, context=replace(first.context, open_file=dropped))
    fresh = ModelMemory(memory.device, None)
    jobs = [replace(job, context=replace(job.context, memory=fresh)) for job in (first, second)]
    ended = outcomes(jobs)
    assert isinstance(ended[0], Cancelled)
    assert isinstance(ended[1], TaskResult)
