"""The order of a line: turns between users, head starts by priority, and leave to pass for a warm model.

docs/scheduling.md tells how the order comes about, with an example.
"""

from collections.abc import Collection, Sequence
from typing import Any

LOWEST_PRIORITY, HIGHEST_PRIORITY = -10, 10
PRIORITY_WORDS = {"low": -5, "normal": 0, "high": 5}
# A claim looks at so many jobs for one whose model the worker has in memory …
WINDOW = 16
# … and no job is passed more often than this for the sake of such models.
MOST_OVERTAKEN = 4


def rank_of(turn: int, priority: int) -> int:
    """A job's place in the order: each point of priority is a head start of one turn."""
    return turn - priority


def turn_of(job: dict[str, Any]) -> int:
    """The turn that a waiting or claimed job takes."""
    return int(job["rank"]) + int(job.get("priority", 0))


def choose_warm(window: Sequence[dict[str, Any]], warm: Collection[str]) -> int:
    """The index of the first job whose checkpoint is warm; 0 when none may pass those before it.

    `window` is the beginning of the line, `warm` the ids of the checkpoints in the worker's memory.
    """
    for index, job in enumerate(window):
        checkpoints = [model["id"] for model in job["models"] if model["type"] == "Stable-diffusion"]
        if checkpoints and all(checkpoint in warm for checkpoint in checkpoints):
            return index
        if job.get("overtaken", 0) >= MOST_OVERTAKEN:
            break
    return 0
