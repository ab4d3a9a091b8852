"""The worker beside a bare diffusers loop on the same pipeline, the time of switches, memory over many jobs.

The worker's own loop runs here, on services that answer from memory: claims, reading of parameters, leases,
batches, encoding and uploads are the real ones. The variable JOBS says how many jobs (500) the memory is
watched over, SWITCHES how many changes of the model (20). With a GPU ``bench.engine_gpu`` is measured too.
"""

import ctypes
import gc
import os
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from bench import engine_gpu
from bench.engine_service import Service
from gpu_worker.client import make_session
from gpu_worker.device import Device, choose_device
from gpu_worker.files import FileCache
from gpu_worker.jobs import Endpoint
from gpu_worker.loading import Pipeline, load_checkpoint
from gpu_worker.loop import Loop
from gpu_worker.pipelines import ModelMemory
from gpu_worker.worker import TASKS
from stack.settings import ROOT

HOUSE = ROOT / "house"
CHECKPOINT = HOUSE / "shapes-v1.safetensors"
LORA = HOUSE / "plum.safetensors"
PROMPT = "a red circle on a white background"
TOGETHER = 8
SIZE = 64
STEPS = 20
# The worker and the bare loop take turns, because machines are noisy.
ROUNDS = 4
BODY = {"prompt": PROMPT, "steps": STEPS, "width": SIZE, "height": SIZE, "sampler_name": "Euler"}
SHORT = BODY | {"steps": 1}
TIMED_SWITCHES = 8
SWITCH_ROUNDS = 6
MOST_FOR_SPEED = 96
GIGABYTES_OF_FILES = 10**11

# A job's body and its models.
Work = tuple[dict[str, Any], list[dict[str, Any]]]


def run() -> dict[str, Any]:
    """All figures; pictures have 64x64 pixels and 20 steps of Euler, by the house checkpoint."""
    jobs = int(os.environ.get("JOBS", "500"))
    switches = int(os.environ.get("SWITCHES", "20"))
    device = choose_device()
    with tempfile.TemporaryDirectory(prefix="sdfleet-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        rig = stack.enter_context(Rig(folder, device))
        figures = _speed(rig, device, min(jobs, MOST_FOR_SPEED)) | _switching(rig, folder)
        figures |= _growth(folder, device, jobs, switches)
    gpu = engine_gpu.run() if device.is_cuda else "skipped: there is no GPU here"
    return figures | {"device": device.name, "gpu": gpu}


class Rig:
    """A worker's loop that runs as long as the block."""

    def __init__(self, folder: Path, device: Device, memory_bytes: int | None = None) -> None:
        self.service = Service()
        client: Any = self.service
        session = make_session()
        files = FileCache(folder / f"cache-{memory_bytes}", GIGABYTES_OF_FILES, session)
        self._loop = Loop(
            client,
            files,
            ModelMemory(device, memory_bytes),
            TASKS,
            session,
            grace_seconds=5,
            claim_seconds=1,
            room=TOGETHER,
        )
        self._loop.assign([Endpoint("e", "bench", "Async")])
        self._thread = threading.Thread(target=self._loop.run)

    def __enter__(self) -> "Rig":
        self.service.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._loop.stop()
        self._thread.join()
        self.service.__exit__(None, None, None)

    def seconds(self, bodies: list[dict[str, Any]], models: list[dict[str, Any]], room: int = 1) -> float:
        """From the moment when jobs wait to the one when all of them are completed."""
        self.service.room = room
        began = time.perf_counter()
        self.service.submit(bodies, models)
        self._loop.ring("bench")
        self.service.wait()
        return time.perf_counter() - began


def _speed(rig: Rig, device: Device, jobs: int) -> dict[str, Any]:
    """Pictures per second of the worker and of the bare loop, alone and in batches of eight."""
    pipeline, _ = load_checkpoint(CHECKPOINT, CHECKPOINT.name, device)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    models = [rig.service.model(CHECKPOINT)]
    each = max(TOGETHER, jobs // ROUNDS // TOGETHER * TOGETHER)
    bodies = [BODY | {"seed": seed} for seed in range(each)]
    spent: dict[tuple[str, int], float] = dict.fromkeys(
        ((who, batch) for who in ("worker", "bare") for batch in (1, TOGETHER)), 0.0
    )
    for turn in range(ROUNDS + 1):
        # The first turn warms up.
        for batch in (1, TOGETHER):
            count = bodies if turn else bodies[:TOGETHER]
            worker = rig.seconds(count, models, batch)
            bare = _bare(pipeline, len(count), batch)
            if turn:
                spent["worker", batch] += worker
                spent["bare", batch] += bare
    rates = {key: ROUNDS * each / seconds for key, seconds in spent.items()}
    return {
        "solo_ratio": round(rates["worker", 1] / rates["bare", 1], 3),
        "batch8_ratio": round(rates["worker", TOGETHER] / rates["bare", TOGETHER], 3),
        "batch8_gain": round(rates["worker", TOGETHER] / rates["worker", 1], 3),
        "worker_pictures_per_second": round(rates["worker", 1], 3),
        "worker_pictures_per_second_8": round(rates["worker", TOGETHER], 3),
        "bare_pictures_per_second": round(rates["bare", 1], 3),
        "bare_pictures_per_second_8": round(rates["bare", TOGETHER], 3),
        "largest_batch_of_jobs": rig.service.largest_claim,
        "pictures": ROUNDS * each,
    }


def _bare(pipeline: Pipeline, pictures: int, batch: int) -> float:
    began = time.perf_counter()
    for first in range(0, pictures, batch):
        pipeline(
            [PROMPT] * batch,
            negative_prompt=[""] * batch,
            num_inference_steps=STEPS,
            guidance_scale=7.0,
            width=SIZE,
            height=SIZE,
            generator=[torch.Generator().manual_seed(seed) for seed in range(first, first + batch)],
        )
    return time.perf_counter() - began


def _switching(rig: Rig, folder: Path) -> dict[str, Any]:
    """Milliseconds that a change costs a job, beside the same jobs without changes; all files are on disk.

    What lies in memory costs a look-up, which can be less than two equal jobs differ by: `switch_noise_ms`
    says what that is. `checkpoint_from_disk_ms` is the change where only one checkpoint fits into memory.
    """
    house = rig.service.model(CHECKPOINT)
    other_file = _copy(folder / "other.safetensors")
    other = rig.service.model(other_file)
    vae = rig.service.model(_vae(folder / "own-vae.safetensors"), "VAE")
    lora = rig.service.model(LORA, "Lora")
    with_lora = SHORT | {"prompt": f"{PROMPT} <lora:{LORA.stem}:1>"}
    plain: Work = (SHORT, [house])
    switches = {
        "checkpoint_switch_ms": _switch(rig, plain, (SHORT, [other])),
        "vae_switch_ms": _switch(rig, plain, (SHORT, [house, vae])),
        "lora_switch_ms": _switch(rig, plain, (with_lora, [house, lora])),
    }
    figures = {name: change for name, (change, _) in switches.items()}
    figures["switch_noise_ms"] = max(noise for _, noise in switches.values())
    with Rig(folder, choose_device(), memory_bytes=1) as small:
        pair = [small.service.model(file) for file in (CHECKPOINT, other_file)]
        figures["checkpoint_from_disk_ms"], _ = _switch(small, (SHORT, pair[:1]), (SHORT, pair[1:]))
    return figures


def _switch(rig: Rig, one: Work, two: Work) -> tuple[float, float]:
    """How much longer jobs last that take turns with other ones, and how far equal jobs' times lie apart.

    Means of the middle halves, and half of the quartiles' distance over the root of the number; milliseconds.
    Equal jobs and turns are taken in alternating rounds, because machines are noisy.
    """
    _times(rig, [one, two])
    same: list[float] = []
    turns: list[float] = []
    for _ in range(SWITCH_ROUNDS):
        for job in (one, two):
            same += _times(rig, [job] * (TIMED_SWITCHES + 1))[1:]
        turns += _times(rig, [one, two] * TIMED_SWITCHES)[1:]
    low, _, high = statistics.quantiles(same, n=4)
    noise = (high - low) / 2 / len(same) ** 0.5
    return round((_centre(turns) - _centre(same)) * 1000, 2), round(noise * 1000, 2)


def _centre(times: list[float]) -> float:
    """The mean of the middle half: jobs of two kinds can have two heights, between which a median jumps."""
    quarter = len(times) // 4
    return statistics.mean(sorted(times)[quarter : len(times) - quarter])


def _times(rig: Rig, jobs: list[Work]) -> list[float]:
    return [rig.seconds([body], models) for body, models in jobs]


def _growth(folder: Path, device: Device, jobs: int, switches: int) -> dict[str, Any]:
    """Memory after all jobs less that after a third of them; one checkpoint fits, each change reads one.

    By then the heaps have their size. What the C library holds for later is given back before each look.
    """
    with Rig(folder, device, memory_bytes=1) as rig:
        files = [rig.service.model(CHECKPOINT), rig.service.model(_copy(folder / "second.safetensors"))]
        parts = max(switches + 1, 5)
        each = max(1, jobs // parts)
        resident = []
        for part in range(parts):
            bodies = [
                SHORT | {"seed": part * each + seed, "prompt": f"{PROMPT} {part}-{seed}"}
                for seed in range(each)
            ]
            rig.seconds(bodies, [files[part % 2]], TOGETHER if part % 4 > 1 else 1)
            resident.append(_resident_mb())
    warm = parts // 3
    return {
        "memory_growth_mb": round(resident[-1] - resident[warm], 1),
        "memory_mb": round(resident[-1], 1),
        "memory_jobs": parts * each,
        "memory_switches": parts - 1,
    }


def _resident_mb() -> float:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _copy(path: Path) -> Path:
    """The house checkpoint as another file."""
    path.write_bytes(CHECKPOINT.read_bytes())
    return path


def _vae(path: Path) -> Path:
    """The house checkpoint's VAE as a file of its own."""
    tensors = {
        key: value for key, value in load_file(CHECKPOINT).items() if key.startswith("first_stage_model.")
    }
    save_file(tensors, path, metadata={"sdfleet.vae_norm_num_groups": "4"})
    return path
