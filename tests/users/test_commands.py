"""python -m services.users: what who has the server can do."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from services.users import signing
from services.users.__main__ import main
from tests.users.driver import ADMIN, ADMIN_PASSWORD, CHEAP_PASSWORDS, Driver, users_config

Environment = Callable[..., dict[str, str]]
ROOT = Path(__file__).resolve().parents[2]


Run = Callable[..., str]


@pytest.fixture()
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in an environment; returns what it prints."""

    def command(settings: dict[str, str], *words: str, stdin: str = "", status: int = 0) -> str:
        for variable, value in (settings | CHEAP_PASSWORDS).items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        assert main(words) == status
        told = capsys.readouterr()
        return told.err if status else told.out

    return command


def test_the_module_is_a_command_that_explains_itself() -> None:
    command = [sys.executable, "-m", "services.users", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "reset-admin" in told
    assert "rotate-keys" in told


def test_reset_admin_prints_a_new_password_once_and_ends_the_old_one(
    environment: Environment, run: Run
) -> None:
    settings = environment()
    users = Driver.of(users_config(settings))
    password = run(settings, "reset-admin").strip()
    assert len(password) >= 20
    assert users.call("GET", "/users", who=users.admin).status_code == 401
    old = users.call("POST", "/auth/token", {"username": ADMIN, "password": ADMIN_PASSWORD})
    assert old.status_code == 401
    users.sign_in(ADMIN, password)


def test_reset_admin_brings_an_administrator_back_from_standard_input(
    environment: Environment, run: Run
) -> None:
    settings = environment()
    users = Driver.of(users_config(settings))
    told = run(settings, "reset-admin", "--username", "rescue", "--password-from-stdin", stdin="typed in\n")
    assert told == ""
    users.admin = users.sign_in("rescue", "typed in")
    assert users.shown("rescue")["roles"] == ["IT Operator"]


def test_rotate_keys_signs_with_a_new_key_and_still_believes_the_old_one(
    environment: Environment, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "PUBLISHED_FIRST_SECONDS", 0)
    settings = environment()
    users = Driver.of(users_config(settings))
    kid = run(settings, "rotate-keys").strip()
    again = Driver.of(users_config(settings))
    assert jwt.get_unverified_header(again.admin.token)["kid"] == kid
    assert again.call("GET", "/users", who=users.admin).status_code == 200


def test_rotate_keys_at_once_ends_every_older_token(environment: Environment, run: Run) -> None:
    settings = environment()
    users = Driver.of(users_config(settings))
    run(settings, "rotate-keys", "--at-once")
    again = Driver.of(users_config(settings))
    assert again.call("GET", "/users", who=again.admin).status_code == 200
    assert again.call("GET", "/users", who=users.admin).status_code == 401


def test_a_missing_setting_is_a_sentence(environment: Environment, run: Run) -> None:
    told = run(environment() | {"SERVICE_SECRET": ""}, "rotate-keys", status=2)
    assert told.startswith("set SERVICE_SECRET")
