"""What the commands up, down, status, creds and logs do and print."""

import contextlib
import json
import shlex
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from stack.deaths import STACK_LOG
from stack.failures import StackError, last_lines
from stack.leftovers import processes_of, read_record
from stack.settings import default_folder
from stack.stack import Credentials, Stack

LOOK_SECONDS = 0.5
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def up(arguments: Namespace) -> int:
    """Start everything, say how to use it, and stay until Ctrl-C or `down`."""
    stack = Stack(default_folder(), say=say)
    with ending_by_signal(stack):
        seconds = stack.up()
        print(banner(stack.creds(), seconds))
        if arguments.detach:
            print("`make down` ends it.")
            return 0
        print("Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            return _follow(stack)
        return _end(stack)


def down(_arguments: Namespace) -> int:
    """End every process of the stack, whatever state it is in."""
    stack = Stack(default_folder())
    ran = bool(processes_of(stack.folder))
    stack.down()
    print("The stack is down." if ran else f"No stack was running in {stack.folder}.")
    return 0


def status(_arguments: Namespace) -> int:
    """Show every process; exit status 1 when one does not run."""
    stack = Stack(default_folder())
    url = stack.record().settings.url("gateway")
    table = Table(title=f"sdfleet at {url}", title_justify="left")
    for column in ("process", "state", "pid", "since"):
        table.add_column(column)
    processes = stack.supervisor.processes()
    for process in processes:
        running = process["pid"] != 0
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(process["start"])) if running else ""
        pid = str(process["pid"]) if running else ""
        table.add_row(process["name"], process["statename"].lower(), pid, since)
    Console().print(table)
    return 0 if all(process["statename"] == "RUNNING" for process in processes) else 1


def creds(_arguments: Namespace) -> int:
    """Print what a client needs, as JSON on one line."""
    print(json.dumps(asdict(Stack(default_folder()).creds())))
    return 0


def env(_arguments: Namespace) -> int:
    """Print the same for a shell to evaluate."""
    creds = Stack(default_folder()).creds()
    variables = {
        "URL": creds.url,
        "API_KEY": creds.api_key,
        "ADMIN": creds.username,
        "PASSWORD": creds.password,
        "S3_URL": creds.s3_url,
    }
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def logs(arguments: Namespace) -> int:
    """Print the last lines of one log, or of each."""
    folder = default_folder() / "logs"
    known = sorted(folder.glob("*.log"))
    wanted = [path for path in known if arguments.name in {None, path.stem}]
    if not wanted:
        raise StackError(
            f"there is no log of {arguments.name}; there are: {', '.join(path.stem for path in known)}"
            if known
            else f"there are no logs in {folder}: no stack was started there"
        )
    for path in wanted:
        print(f"{path}:\n{last_lines(path, arguments.lines)}")
    return 0


def banner(creds: Credentials, seconds: float) -> str:
    """How to use the stack that has just started."""
    return (
        f"\nsdfleet is ready after {seconds:.1f} s.\n\n"
        f"  address    {creds.url}\n"
        f"  API key    {creds.api_key}\n"
        f"  user       {creds.username}\n"
        f"  password   {creds.password}\n\n"
        "Try it:\n"
        f"  curl -H 'x-api-key: {creds.api_key}' {creds.url}/ping\n"
    )


def say(line: str) -> None:
    """Progress is for people: it goes to standard error, so that a script reads only results."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def ending_by_signal(stack: Stack) -> Iterator[None]:
    """End the stack when the block is interrupted: Ctrl-C, a closed terminal, or a plain kill."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING_SIGNALS}
    try:
        yield
    except KeyboardInterrupt:
        _end(stack)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(stack: Stack) -> int:
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # ending takes seconds: nothing interrupts it
    say("\nEnding the stack …")
    stack.down()
    say("The stack is down.")
    return 0


def _follow(stack: Stack) -> int:
    """Print each process's death as it is recorded, until the stack ends."""
    log = stack.supervisor.logs / STACK_LOG
    place = log.stat().st_size if log.exists() else 0
    while stack.supervisor.answers():
        place = _print_from(log, place)
        time.sleep(LOOK_SECONDS)
    record = read_record(stack.folder)
    if record is None or not record.ready:
        say("The stack was ended by another command.")
        return 0
    stack.down()
    output = last_lines(stack.supervisor.logs / "supervisord.log")
    raise StackError(f"supervisord is gone, so the stack was ended:\n{output}")


def _print_from(log: Path, place: int) -> int:
    if not log.exists():
        return place
    with log.open("rb") as file:
        file.seek(place)
        news = file.read()
    if news:
        print(news.decode(errors="replace"), end="", flush=True)
    return place + len(news)
