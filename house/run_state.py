"""The state of a training run: networks, their averages, optimiser, random numbers and the CPU time spent."""

import copy
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from house import architecture
from house.cores import CoreSharing

SAVE_EVERY_SECONDS = 120.0
LOG_EVERY_STEPS = 50


def write_atomically(state: dict[str, Any], path: Path) -> None:
    """Saves beside ``path`` and renames, so that a run cut short leaves the former state whole."""
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Run:
    """One training run; a new object on the same folder continues where the last one saved."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        self.rng = random.Random(0)
        torch.manual_seed(0)
        self.networks: dict[str, Any] = {
            "vae": architecture.build_vae().to(device),
            "text_encoder": architecture.build_text_encoder().to(device),
            "attribute_heads": architecture.build_attribute_heads().to(device),
            "unet": architecture.build_unet().to(device, memory_format=torch.channels_last),
        }
        for name in ("text_encoder", "unet"):
            self.networks[f"{name}_ema"] = copy.deepcopy(self.networks[name]).eval().requires_grad_(False)
        self.done: list[str] = []
        self.stage, self.step = "", 0
        self._optimizer_state: dict[str, Any] | None = None
        self._former_cpu_seconds = 0.0
        self._path = folder / "state.pt"
        folder.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            self._load()

    @property
    def cpu_seconds(self) -> float:
        """CPU time of all sessions of this run, summed over cores."""
        return self._former_cpu_seconds + time.process_time()

    def _load(self) -> None:
        state = torch.load(self._path, map_location=self.device, weights_only=False)
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        self.done, self.stage, self.step = state["done"], state["stage"], state["step"]
        self._optimizer_state = state["optimizer"]
        self._former_cpu_seconds = state["cpu_seconds"] - time.process_time()
        self.rng.setstate(state["python_rng"])
        torch.set_rng_state(state["torch_rng"].cpu())
        self.log(f"continues after {self.done or 'nothing'}, stage {self.stage or '-'} step {self.step}")

    def _save(self, optimizer: torch.optim.Optimizer | None) -> None:
        state = {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "done": self.done,
            "stage": self.stage,
            "step": self.step,
            "optimizer": optimizer.state_dict() if optimizer else None,
            "cpu_seconds": self.cpu_seconds,
            "python_rng": self.rng.getstate(),
            "torch_rng": torch.get_rng_state(),
        }
        write_atomically(state, self._path)

    def log(self, text: str) -> None:
        """One line of progress with the CPU time so far."""
        print(f"[{time.strftime('%H:%M:%S')} cpu {self.cpu_seconds:7.0f}s] {text}", flush=True)

    def steps(self, stage: str, optimizer: torch.optim.Optimizer, total: int) -> Iterator[float]:
        """Yields the stage's progress from 0 to 1 once per step, saving every two minutes.

        Progress counts steps, not seconds: a run starved of CPU learns as much as one that had it all, and
        one that is continued with fewer steps simply ends its learning-rate curve sooner.
        """
        if self.stage == stage and self._optimizer_state is not None:
            optimizer.load_state_dict(self._optimizer_state)
        else:
            self.stage, self.step = stage, 0
        self._optimizer_state = None
        saved_at, sharing = time.monotonic(), CoreSharing()
        while self.step < total:
            yield self.step / total
            self.step += 1
            sharing.adapt()
            if time.monotonic() - saved_at > SAVE_EVERY_SECONDS:
                self._save(optimizer)
                saved_at = time.monotonic()

    def finish(self, stage: str) -> None:
        """Marks a stage as done, once what follows its steps has been applied to the networks."""
        self.done.append(stage)
        self.stage, self.step = "", 0
        self._save(None)

    def report(self, total: int, figures: dict[str, float | Tensor]) -> None:
        """Logs the stage's figures every fifty steps."""
        if self.step % LOG_EVERY_STEPS == 0:
            texts = [f"{name} {float(value):.4f}" for name, value in figures.items()]
            self.log(
                f"{self.stage} {self.step}/{total} " + " ".join(texts) + f" threads {torch.get_num_threads()}"
            )
