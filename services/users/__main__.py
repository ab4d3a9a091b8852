"""Commands for who has the server: `python -m services.users reset-admin | rotate-keys`."""

import argparse
import secrets
import sys
from collections.abc import Sequence
from datetime import timedelta

from pymongo.errors import PyMongoError

from services.common.mongo import open_database
from services.common.settings import SettingsError, read_settings
from services.users.app import make_parts
from services.users.config import Config
from services.users.first_start import reset_administrator
from services.users.parts import Parts
from services.users.signing import OVERLAP


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(words)
    try:
        config = read_settings(Config)
        made = make_parts(config, open_database(config.mongo, "users"))
        made.repository.prepare()
        made.credentials.prepare()
        _COMMANDS[arguments.command](made, arguments)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    except PyMongoError as error:
        print(f"MongoDB refused: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _reset_admin(made: Parts, arguments: argparse.Namespace) -> None:
    if arguments.password_from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = secrets.token_urlsafe(18)
    if not password:
        raise SettingsError("the password on standard input is empty")
    reset_administrator(arguments.username, password, made.repository, made.passwords)
    if not arguments.password_from_stdin:
        print(password)  # noqa: T201 - shown this once


def _rotate_keys(made: Parts, arguments: argparse.Namespace) -> None:
    made.ring.ensure()
    overlap = timedelta(0) if arguments.at_once else OVERLAP
    print(made.ring.rotate(overlap))  # noqa: T201


_COMMANDS = {"reset-admin": _reset_admin, "rotate-keys": _rotate_keys}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.users", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    reset = commands.add_parser(
        "reset-admin", help="give an administrator a new password and the default role; prints the password"
    )
    reset.add_argument("--username", default="admin")
    reset.add_argument("--password-from-stdin", action="store_true", help="read the password, print nothing")
    rotate = commands.add_parser("rotate-keys", help="sign with a new key from now on; prints its id")
    rotate.add_argument(
        "--at-once",
        action="store_true",
        help="believe older keys no longer: everybody signs in again (a key was stolen)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
