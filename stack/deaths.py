"""A supervisord event listener: one line per process that died, with the last lines of its log."""

import sys
import time
from pathlib import Path

from stack.failures import last_lines

STACK_LOG = "stack.log"


def main(logs: Path) -> None:
    """Follow supervisord's event protocol on standard input and output for ever."""
    while True:
        sys.stdout.write("READY\n")
        sys.stdout.flush()
        line = sys.stdin.readline()
        if not line:
            return
        header = _words(line)
        event = _words(sys.stdin.read(int(header["len"])))
        with (logs / STACK_LOG).open("a") as log:
            log.write(describe(header["eventname"], event, logs))
        sys.stdout.write("RESULT 2\nOK")
        sys.stdout.flush()


def describe(kind: str, event: dict[str, str], logs: Path) -> str:
    """What happened, in a line, and the end of the program's log."""
    name = event["processname"]
    if kind == "PROCESS_STATE_FATAL":
        what = f"{name} keeps dying and is given up"
    elif kind == "PROCESS_STATE_BACKOFF":
        what = f"{name} died while starting, it is tried again"
    else:
        what = f"{name} (pid {event.get('pid', '?')}) died, it is started again"
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return f"{now} {what}; the end of {logs / name}.log:\n{last_lines(logs / f'{name}.log', 5)}\n"


def _words(line: str) -> dict[str, str]:
    return dict(word.split(":", 1) for word in line.split())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
