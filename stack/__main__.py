"""`python -m stack`: up, down, status, creds, env, logs, demo."""

import argparse
import sys

from stack import commands
from stack.demo.command import add_arguments as add_demo_arguments
from stack.demo.command import demo
from stack.failures import StackError


def main(words: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    arguments = _parser().parse_args(words)
    try:
        return int(arguments.run(arguments))
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stack",
        description="The whole of sdfleet on this machine, without Docker and without root.",
        epilog="SDFLEET_PORT chooses the gateway's port, SDFLEET_PORT_BASE all ports, SDFLEET_WORKERS the "
        "number of GPU workers, SDFLEET_FOLDER where everything is kept (default: .stack).",
    )
    subcommands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = subcommands.add_parser("up", help="start everything; Ctrl-C ends it")
    up.add_argument("--detach", action="store_true", help="return when it is ready, and leave it running")
    up.set_defaults(run=commands.up)
    simple = {
        "down": (commands.down, "end everything"),
        "status": (commands.status, "show the processes"),
        "creds": (commands.creds, "print what a client of the running stack needs, as JSON"),
        "env": (commands.env, "print the same as variables for a shell"),
    }
    for name, (run, text) in simple.items():
        subcommands.add_parser(name, help=text).set_defaults(run=run)
    logs = subcommands.add_parser("logs", help="show the end of the logs")
    logs.add_argument("name", nargs="?", help="of this process only")
    logs.add_argument("-n", "--lines", type=int, default=15, help="lines of each log")
    logs.set_defaults(run=commands.logs)
    demonstration = subcommands.add_parser("demo", help="make a picture as a client of the API does")
    add_demo_arguments(demonstration)
    demonstration.set_defaults(run=demo)
    return parser


if __name__ == "__main__":
    sys.exit(main())
