"""The secrets of a stack."""

from dataclasses import astuple
from pathlib import Path

from stack.secrets import load_or_make


def test_secrets_are_made_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    made = load_or_make(tmp_path)
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert load_or_make(tmp_path) == made


def test_a_mode_that_somebody_widened_is_narrowed_again(tmp_path: Path) -> None:
    load_or_make(tmp_path)
    (tmp_path / "secrets.json").chmod(0o644)
    load_or_make(tmp_path)
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_two_stacks_share_no_secret(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert not set(astuple(load_or_make(tmp_path / "one"))) & set(astuple(load_or_make(tmp_path / "other")))


def test_secrets_do_not_show_when_they_are_printed(tmp_path: Path) -> None:
    made = load_or_make(tmp_path)
    assert not [secret for secret in astuple(made) if secret in repr(made)]
