"""One program of the stack: what is run, how it is stopped, and how one knows that it is ready."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stack.failures import StackError, last_lines

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Program:
    """One process, as declared; `ready` raises while it is not, None where living is all one can see."""

    name: str
    command: tuple[str, ...]
    ready: Callable[[], object] | None
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None  # working directory
    ready_seconds: float = 120
    stop_signal: str = "TERM"
    stop_seconds: int = 10


class Died(Exception):
    """The process ended while it was being waited for."""


def wait_until_ready(
    programs: Sequence[Program],
    log_of: Callable[[Program], Path],
    check_alive: Callable[[Program], object],
    say: Callable[[str], object] = lambda _line: None,
) -> None:
    """Wait for the conditions of programs that were started together; `check_alive` raises Died.

    Raises StackError with the last lines of the log of the first that ends, or takes longer than it may.
    """
    began = time.monotonic()
    waiting = list(programs)
    while waiting:
        for program in tuple(waiting):
            seconds = time.monotonic() - began
            try:
                check_alive(program)
                if program.ready is not None:
                    program.ready()
            except Died:
                end = last_lines(log_of(program))
                raise StackError(f"{program.name} ended while it was starting:\n{end}") from None
            except Exception as error:
                if seconds > program.ready_seconds:
                    cause = f"{type(error).__name__}: {error}"[:300]
                    waited = f"{program.name} was not ready after {seconds:.0f} s ({cause})"
                    raise StackError(f"{waited}:\n{last_lines(log_of(program))}") from error
            else:
                waiting.remove(program)
                say(f"{program.name} is ready ({seconds:.1f} s)")
        time.sleep(POLL_SECONDS)
