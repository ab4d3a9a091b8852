"""`sdfleet upload FILE --type Lora`."""

import argparse
import os
import sys
import threading
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from sdfleet_cli.api import Api
from sdfleet_cli.failures import CommandError
from sdfleet_cli.upload import GO_ON, Upload

INTERRUPTED = 130


def main(words: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    arguments = _parser().parse_args(words)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        upload(arguments, console)
    except CommandError as error:
        console.print(f"sdfleet: {error}", markup=False, style="red")
        return 1
    except KeyboardInterrupt:
        console.print(f"sdfleet: interrupted; {GO_ON}", markup=False)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sdfleet", description="A client of sdfleet.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    one = commands.add_parser(
        "upload",
        help="upload a model file",
        description="Upload a model file in parallel parts. Run the same command again after an "
        "interruption: what has arrived is not sent again.",
    )
    one.add_argument("file", type=Path, metavar="FILE", help=".safetensors, or .ckpt, .pt, .pth, .bin")
    one.add_argument(
        "--type", required=True, metavar="TYPE", help="Stable-diffusion, Lora, VAE, ControlNet, embeddings, …"
    )
    one.add_argument("--name", help="name on the platform (default: the file's)")
    one.add_argument("--message", default="", help="a note on the checkpoint")
    one.add_argument(
        "--allow",
        action="append",
        metavar="WHO",
        help="role or user who may use it, * for all (repeatable)",
    )
    where = one.add_argument_group("where and who (or environment variables)")
    for option, text in (
        ("url", "address of sdfleet"),
        ("api-key", "API key"),
        ("username", "user (not needed for a key that is bound to one)"),
        ("password", "password; better given as the variable, which other users cannot see"),
    ):
        variable = f"SDFLEET_{option.upper().replace('-', '_')}"
        where.add_argument(f"--{option}", default=os.environ.get(variable), help=f"{text} [{variable}]")
    return parser


def upload(arguments: argparse.Namespace, console: Console) -> None:
    """Upload the file, show how far it is, and print the checkpoint's id on standard output."""
    for option in ("url", "api_key"):
        if not getattr(arguments, option):
            name = option.replace("_", "-")
            raise CommandError(f"--{name} is missing: give it, or set SDFLEET_{option.upper()}")
    api = Api(arguments.url, arguments.api_key)
    if arguments.username:
        if not arguments.password:
            raise CommandError("--password is missing: give it, or set SDFLEET_PASSWORD")
        api.sign_in(arguments.username, arguments.password)
    name = arguments.name or arguments.file.name
    work = Upload(api, arguments.file, name, arguments.type)
    checkpoint_id = work.begin(arguments.message, arguments.allow)
    columns = (
        TextColumn("{task.description}"),
        *(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console) as bar:
        task, lock = bar.add_task(name, total=work.parts.size), threading.Lock()

        def told(count: int) -> None:
            with lock:
                bar.advance(task, count)

        work.send(checkpoint_id, told)
        bar.update(task, description=f"{name}: checking")
        checkpoint = work.wait(checkpoint_id)
    if warning := checkpoint["params"].get("warning"):
        console.print(f"sdfleet: {warning}", markup=False, style="yellow")
    Console(soft_wrap=True, highlight=False).print(checkpoint_id)


if __name__ == "__main__":
    sys.exit(main())
