"""What can go wrong with a stack, each as one sentence for the person at the keyboard."""

from pathlib import Path


class StackError(Exception):
    """The stack cannot do what was asked; the message says why and what to do."""


class AlreadyRunning(StackError):
    """A second copy was started in the same folder."""


class NotRunning(StackError):
    """Something was asked of a stack that is not running."""


def last_lines(log: Path, count: int = 15) -> str:
    """The last lines of a log file, indented; empty when there is none."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode(errors="replace").splitlines()[-count:]
    return "\n".join(f"    {line[:400]}" for line in lines)
