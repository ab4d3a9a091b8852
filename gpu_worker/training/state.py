"""What a training needs to go on after a death: one file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpu_worker.errors import RequestFault
from gpu_worker.training.networks import Networks


@dataclass(slots=True)
class Learning:
    """What changes from step to step."""

    networks: Networks
    optimizer: torch.optim.Optimizer
    schedule: Any
    scaler: Any
    step: int = 0


def save(learning: Learning, path: Path) -> None:
    """Writes the state after `learning.step` steps, whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "step": learning.step,
            "learned": {name: tensor.detach().cpu() for name, tensor in learning.networks.learned()},
            "optimizer": learning.optimizer.state_dict(),
            "schedule": json.dumps(_plain(learning.schedule.state_dict())),
            "scaler": learning.scaler.state_dict(),
        },
        partial,
    )
    partial.replace(path)


def load(learning: Learning, path: Path) -> None:
    """Goes on where `save` was; raises RequestFault when the file is of another training."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for name, tensor in learning.networks.learned():
                tensor.copy_(state["learned"][name])
        learning.optimizer.load_state_dict(state["optimizer"])
        schedule = json.loads(state["schedule"])
        if hasattr(learning.schedule, "lr_lambdas"):  # None: its functions stay as they were made
            schedule["lr_lambdas"] = [None] * len(learning.schedule.lr_lambdas)
        learning.schedule.load_state_dict(schedule)
        learning.scaler.load_state_dict(state["scaler"])
        learning.step = int(state["step"])
    except (KeyError, ValueError, RuntimeError, EOFError, OSError) as error:
        raise RequestFault(
            "the saved state does not fit this training; start it anew as another one"
        ) from error


def _plain(schedule: dict[str, Any]) -> dict[str, Any]:
    """Without the functions that torch puts there; they are made again."""
    return {name: value for name, value in schedule.items() if name != "lr_lambdas"}
