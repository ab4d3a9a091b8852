"""The README's examples do what they say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stack.settings import ROOT
from tests.running import Running

MARKED = re.compile(r"<!-- run by tests/api/test_readme.py -->\n```(\w+)\n(.*?)```", re.DOTALL)
EXAMPLES = MARKED.findall((ROOT / "README.md").read_text())
PROGRAMS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


@pytest.mark.parametrize(("language", "code"), EXAMPLES, ids=[language for language, _ in EXAMPLES])
def test_an_example_runs(running: Running, tmp_path: Path, language: str, code: str) -> None:
    target = running.target
    variables = {
        "URL": target.url,
        "API_KEY": target.api_key,
        "ADMIN": target.username,
        "PASSWORD": target.password,
        "SDFLEET_FOLDER": str(running.stack.folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    (tmp_path / "house").symlink_to(ROOT / "house")
    (tmp_path / "Makefile").symlink_to(ROOT / "Makefile")
    where = ROOT if language == "bash" else tmp_path
    ran = subprocess.run(
        [*PROGRAMS[language], code],
        cwd=where,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    if language == "python":
        assert (tmp_path / "red-circle.png").read_bytes().startswith(b"\x89PNG")
    else:
        assert "pong" in ran.stdout
        assert "shapes-v1.safetensors" in ran.stdout
