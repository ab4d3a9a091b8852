"""`python -m stack.demo`: the demonstration; with --target or --url it needs the extra `cli` alone."""

import argparse
import sys

from stack.demo.command import add_arguments, demo
from stack.failures import StackError


def main() -> int:
    """Run it; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m stack.demo", description=__doc__)
    add_arguments(parser)
    try:
        return demo(parser.parse_args())
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
