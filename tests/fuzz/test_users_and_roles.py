"""schemathesis against users and roles through the gateway: no 5xx, no answer outside the document.

`make fuzz` runs thousands of cases; here as many as a few seconds allow.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.identity import URL
from tests.gateway.running import HOST, ROOT, free_port, gateway, users_service
from tests.users.driver import CHEAP_PASSWORDS

LEAST_CASES = int(os.environ.get("FUZZ_CASES", "150"))
OPERATIONS = 17
# The coverage phase goes through every boundary of every field, about 900 cases; it is for the long form.
PHASES = "coverage,fuzzing" if LEAST_CASES > 900 else "fuzzing"
# One address signs in wrongly all the time here.
LIMITS = ("SIGN_IN_FAILURES", "SIGN_IN_FAILURES_PER_USER", "SIGN_IN_FAILURES_PER_ADDRESS")
PATIENT = dict.fromkeys(LIMITS, "1000000")


@pytest.mark.timeout(1800)
def test_no_answer_is_a_failure_of_ours_or_outside_the_document(
    environment: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    settings, port = environment() | CHEAP_PASSWORDS | PATIENT, free_port()
    nobody = f"server {HOST}:{free_port()};"
    upstreams = {
        f"{name}_UPSTREAM": nobody
        for name in ("CHECKPOINTS", "ENDPOINTS", "INFERENCE", "DATASETS", "TRAINING")
    }
    with (
        users_service(tmp_path, settings, port),
        gateway(tmp_path, USERS_UPSTREAM=f"server {HOST}:{port};", **upstreams) as gate,
    ):
        hooks = {"SCHEMATHESIS_HOOKS": "tests.fuzz.hooks", "PYTHONPATH": str(ROOT), URL: gate.url}
        ran = subprocess.run(
            [*schemathesis(), f"{gate.url}/openapi.json", f"--url={gate.url}"],
            cwd=tmp_path,
            env=os.environ | settings | hooks,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout[-20_000:]
    found = re.search(r"^\s*(\d+) generated, (\d+) passed", ran.stdout, re.MULTILINE)
    assert found, ran.stdout
    assert found[1] == found[2]
    assert int(found[1]) >= LEAST_CASES
    assert "Traceback" not in (tmp_path / "users.log").read_text()
    assert f"Tested: {OPERATIONS}" in ran.stdout
    assert "returned only 401/403" not in ran.stdout


def schemathesis() -> list[str]:
    """The command, less the address."""
    return [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file"),
        *(str(Path(__file__).with_name("schemathesis.toml")), "run", "--checks=all", "--no-color"),
        *("--include-path-regex=^/(users|roles|api-keys|auth|audit|ping)", f"--phases={PHASES}"),
        # Up to so many each; some bodies are soon exhausted.
        f"--max-examples={max(10, LEAST_CASES // OPERATIONS)}",
        *("--generation-database=none", "--continue-on-failure", "--no-shrink"),
    ]
