"""How the demonstration shows its steps, the job's progress and its timeline."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

MOMENTS = ("queued", "claimed", "first_step", "last_step", "fetchable")
EXPLAINED = {
    "queued": "the start call put it into the queue",
    "claimed": "a worker took it",
    "first_step": "the first denoising step was done",
    "last_step": "the last denoising step was done",
    "fetchable": "the picture can be downloaded",
}
TIME = "%Y-%m-%d %H:%M:%S.%f"


def show_progress(console: Console, jobs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Draw a bar while the job goes on; the job as it ended."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
    job: dict[str, Any] = {}
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("waiting", total=None)
        for job in jobs:
            progress = job.get("progress") or {}
            steps = progress.get("steps")
            step = steps if job["status"] == "succeed" and steps else progress.get("step", 0)
            bar.update(task, description=_doing(job), total=steps, completed=step)
    return job


def _doing(job: dict[str, Any]) -> str:
    if job["status"] == "succeed":
        return "finished"
    if job.get("queue_position") is not None:
        return f"in the queue at place {job['queue_position']}"
    return "denoising" if job.get("progress") else "loading the checkpoint"


def timeline_ms(job: dict[str, Any]) -> dict[str, float]:
    """Milliseconds since the job was queued, of each moment that was recorded."""
    timeline = job["timeline"]
    queued = datetime.strptime(timeline["queued"], TIME)
    return {
        moment: round((datetime.strptime(timeline[moment], TIME) - queued).total_seconds() * 1000, 1)
        for moment in MOMENTS
        if timeline.get(moment)
    }


def show_timeline(console: Console, timeline: dict[str, float]) -> None:
    """The timeline as a table."""
    table = Table(box=None, padding=(0, 2))
    table.add_column("moment")
    table.add_column("ms", justify="right")
    table.add_column("what happened")
    for moment, milliseconds in timeline.items():
        table.add_row(moment, f"{milliseconds:.1f}", EXPLAINED[moment])
    console.print(table)


def next_things(picture: Path) -> str:
    """What to try after the demonstration."""
    return (
        "\nNext things to try:\n"
        f"  look at {picture}\n"
        "  make demo PROMPT='a yellow star on a purple background'\n"
        "  make up        the same stack, to stay; it prints a key and a curl line\n"
        "  make creds     what a client of it needs, as JSON\n"
        "  README.md      the API with curl and Python\n"
    )
