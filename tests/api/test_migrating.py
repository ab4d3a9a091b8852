"""The script that moves roles and users does it, and may be run again."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stack.settings import ROOT
from tests.running import Running

MARKED = re.compile(r"<!-- run by tests/api/test_migrating.py -->\n```python\n(.*?)```", re.DOTALL)
ROLES = [
    {"role_name": "IT Operator", "permissions": ["user:all"]},
    {"role_name": "moved artists", "permissions": ["inference:all", "checkpoint:list"]},
]
USERS = [
    {"username": "admin", "roles": ["IT Operator"]},
    {"username": "moved ann", "roles": ["moved artists"]},
]


@pytest.mark.timeout(900)  # the first test waits for the stack
def test_roles_and_users_are_moved(running: Running, tmp_path: Path) -> None:
    [script] = MARKED.findall((ROOT / "docs" / "migrating.md").read_text())
    target = running.target
    (tmp_path / "roles.json").write_text(json.dumps(ROLES))
    (tmp_path / "users.json").write_text(json.dumps(USERS))
    variables = {"URL": target.url, "API_KEY": target.api_key, "ADMIN": target.username}
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=os.environ | variables | {"PASSWORD": target.password},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
    file = tmp_path / "new-passwords.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    passwords = json.loads(file.read_text())
    assert list(passwords) == ["moved ann"]
    key = {"x-api-key": target.api_key, "content-type": "application/json"}
    wanted = {"username": "moved ann", "password": passwords["moved ann"]}
    token = running.ask("POST", "/auth/token", wanted, **key).json()["data"]["access_token"]
    mine = running.ask("GET", "/users", None, **key, Authorization=f"Bearer {token}").json()["data"]
    assert mine["users"][0]["permissions"] == sorted(ROLES[1]["permissions"])
