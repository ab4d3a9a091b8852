"""The stack on this machine that the demonstration uses: the one that runs, else one of its own."""

import contextlib
from collections.abc import Iterator

from stack.commands import ending_by_signal, say
from stack.demo.client import Target
from stack.failures import NotRunning
from stack.settings import default_folder
from stack.stack import Credentials, Stack


@contextlib.contextmanager
def running_or_own() -> Iterator[tuple[Target, float]]:
    """The target, and the seconds until it was ready: 0 when it ran already."""
    stack = Stack(default_folder(), say=say)
    running = _running(stack)
    if running:
        say(f"The stack at {running.url} is used and left running.")
        yield _administrator(running), 0.0
        return
    with ending_by_signal(stack):
        seconds = stack.up()
        say(f"The stack is ready after {seconds:.1f} s.")
        try:
            yield _administrator(stack.creds()), round(seconds, 1)
        finally:
            say("Ending the stack …")
            stack.down()


def _running(stack: Stack) -> Credentials | None:
    try:
        return stack.creds()
    except NotRunning:
        return None


def _administrator(creds: Credentials) -> Target:
    return Target(creds.url, creds.api_key, creds.username, creds.password)
