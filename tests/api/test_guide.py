"""The guide's examples do what they say: the shell's as one session, with Python's between."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from stack.settings import ROOT
from tests.running import Running

MARKED = re.compile(r"<!-- run by tests/api/test_guide.py -->\n```(\w+)\n(.*?)```", re.DOTALL)
TEXT = (ROOT / "docs" / "guide.md").read_text()
EVERY_RESOURCE = (
    *("/auth/token", "/roles", "/users", "/api-keys", "/checkpoints", "/endpoints", "/inferences"),
    *("/webhooks", "/datasets", "/trainings", "/inference/run-model-merge", "/audit"),
)


def blocks(language: str) -> list[str]:
    return [code for found, code in MARKED.findall(TEXT) if found == language]


def test_every_resource_is_in_the_examples_that_run() -> None:
    examples = "\n".join(code for _, code in MARKED.findall(TEXT))
    assert [path for path in EVERY_RESOURCE if path not in examples] == []


@pytest.mark.timeout(900)
def test_the_guide_runs_from_top_to_bottom(running: Running, tmp_path: Path) -> None:
    target = running.target
    sign_in = {"username": target.username, "password": target.password}
    key = {"x-api-key": target.api_key, "content-type": "application/json"}
    token = running.ask("POST", "/auth/token", sign_in, **key).json()["data"]["access_token"]
    share_with_everyone(running, key | {"Authorization": f"Bearer {token}"})
    shell = blocks("bash")
    script = tmp_path / "guide.sh"
    python = tmp_path / "guide.py"
    python.write_text("\n".join(blocks("python")))
    # The endpoint that the shell makes serves Python's jobs; the shell tidies up when both are done.
    script.write_text("\n".join([*shell[:-1], f"{sys.executable} {python}", shell[-1]]))
    variables = {
        "URL": target.url,
        "API_KEY": target.api_key,
        "ADMIN": target.username,
        "PASSWORD": target.password,
        "SDFLEET_FOLDER": str(running.stack.folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", str(script)],
        cwd=ROOT,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}"
    assert "event: end" in ran.stdout
    assert "Stable Diffusion 1.x" in ran.stdout
    assert Path("/tmp/red-circle.png").read_bytes().startswith(b"\x89PNG")


def share_with_everyone(running: Running, headers: dict[str, str]) -> None:
    """The stack's checkpoint is its artist's; in the README it is everybody's who has the role."""
    found = running.ask("GET", "/checkpoints", None, **headers).json()["data"]["checkpoints"]
    [shapes] = [one for one in found if one["name"] == ["shapes-v1.safetensors"]]
    changes = {"allowed_roles_or_users": ["*"]}
    answer: requests.Response = running.ask("PUT", f"/checkpoints/{shapes['id']}", changes, **headers)
    assert answer.ok, answer.text
