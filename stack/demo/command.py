"""`python -m stack.demo`: takes the steps on a running stack, on one of its own, or on another target."""

import json
import os
import secrets
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from rich.console import Console

from stack.demo import journey, report
from stack.demo.client import Client, DemoFailed, Target
from stack.demo.place import COMPOSE, ROOT, choose_target

CHECKPOINT = ROOT / "house" / "shapes-v1.safetensors"
PICTURES = ROOT / "demo-pictures"
PROMPT = "a red circle on a white background"
SIZE = 64  # pixels: what the house checkpoint was trained on
STEPS = 20


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--prompt", default=PROMPT, help="what the picture shows (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="default: the house checkpoint")
    parser.add_argument("--size", type=int, default=SIZE, help="width and height in pixels")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder for the picture")
    other = parser.add_argument_group("another sdfleet than the one on this machine")
    other.add_argument(
        "--target", choices=(COMPOSE,), help="the one that docker compose runs here: .env says where"
    )
    other.add_argument("--url", help="its gateway")
    other.add_argument("--api-key", default=os.environ.get("SDFLEET_API_KEY"), help="or SDFLEET_API_KEY")
    other.add_argument("--username", default=os.environ.get("SDFLEET_USERNAME", "admin"))
    other.add_argument("--password", default=os.environ.get("SDFLEET_PASSWORD"), help="or SDFLEET_PASSWORD")


def demo(arguments: Namespace) -> int:
    """Make a picture; the last line of the output is one JSON object."""
    began = time.monotonic()
    if not arguments.checkpoint.is_file():
        raise DemoFailed(f"there is no checkpoint {arguments.checkpoint}")
    console = Console(highlight=False, soft_wrap=True)
    with choose_target(arguments) as (target, ready_seconds):
        result = _take_the_steps(console, target, arguments)
    result["ready_s"] = ready_seconds
    result["total_s"] = round(time.monotonic() - began, 1)
    print(json.dumps(result))
    return 0


def _take_the_steps(console: Console, target: Target, arguments: Namespace) -> dict[str, Any]:
    def done(line: str) -> None:
        console.print(f"[green]✓[/green] {line}")

    client = journey.create_artist(target)
    done(f"signed in as {target.username}, created the role {journey.ROLE} and the user {journey.USER}")
    model = _provide_checkpoint(client, arguments.checkpoint, done)
    endpoint = _provide_endpoint(client, done)
    parameters = {
        "prompt": arguments.prompt,
        "negative_prompt": "",
        "seed": arguments.seed,
        "steps": STEPS,
        "cfg_scale": 7,
        "sampler_name": "Euler",
        "width": arguments.size,
        "height": arguments.size,
    }
    job_id = journey.start_job(client, endpoint, model, parameters)
    done(f"started the job {job_id}: “{arguments.prompt}”")
    job = report.show_progress(console, journey.follow_job(client, job_id))
    picture = journey.download_picture(job, arguments.pictures)
    done(f"downloaded [bold]{picture}[/bold]")
    timeline = report.timeline_ms(job)
    report.show_timeline(console, timeline)
    console.print(report.next_things(picture), markup=False)
    return {"picture": str(picture), "prompt": arguments.prompt, "job": job_id, "timeline_ms": timeline}


def _provide_checkpoint(client: Client, file: Path, done: Any) -> str:
    """The file name under which the checkpoint can be used."""
    if journey.find_checkpoint(client, file.name):
        done(f"the checkpoint {file.name} is there already")
        return file.name
    name = file.name
    try:
        parts = journey.upload_checkpoint(client, file, name)
    except DemoFailed as failure:
        if "already exists" not in str(failure):
            raise
        name = f"{file.stem}-{secrets.token_hex(3)}{file.suffix}"  # taken, by a checkpoint that we cannot use
        parts = journey.upload_checkpoint(client, file, name)
    done(f"uploaded {name} ({file.stat().st_size / 1e6:.1f} MB) in {parts} parts")
    return name


def _provide_endpoint(client: Client, done: Any) -> str:
    """The name of an endpoint that is in service."""
    name = journey.find_endpoint(client)
    if name is None:
        name = journey.create_endpoint(client)
        done(f"created the endpoint {name}")
    journey.wait_in_service(client, name)
    done(f"the endpoint {name} is in service")
    return name
