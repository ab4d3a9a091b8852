"""The demonstration: what it shows, and how it fails."""

import subprocess
import sys
from pathlib import Path

from stack.demo.report import timeline_ms
from stack.ports import HOST, free_ports
from stack.settings import ROOT


def test_the_timeline_counts_from_the_queue_and_leaves_out_what_was_not_recorded() -> None:
    job = {
        "timeline": {
            "created": "2026-11-22 08:00:00.000000",
            "queued": "2026-11-22 08:00:01.000000",
            "claimed": "2026-11-22 08:00:01.012500",
            "first_step": None,
            "last_step": "2026-11-22 08:00:03.000000",
            "fetchable": "2026-11-22 08:00:03.040000",
        }
    }
    assert timeline_ms(job) == {"queued": 0.0, "claimed": 12.5, "last_step": 2000.0, "fetchable": 2040.0}


def demo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "stack", "demo", *words), cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_a_demonstration_that_fails_says_why_and_exits_with_1(tmp_path: Path) -> None:
    checkpoint = tmp_path / "any.safetensors"
    checkpoint.write_bytes(b"")
    [port] = free_ports(1)
    target = ("--url", f"http://{HOST}:{port}", "--api-key", "key", "--password", "password")
    failed = demo("--checkpoint", str(checkpoint), *target)
    assert failed.returncode == 1
    assert "POST /auth/token got no answer" in failed.stderr
    assert failed.stdout == ""


def test_a_missing_checkpoint_is_said_before_anything_starts(tmp_path: Path) -> None:
    failed = demo("--checkpoint", str(tmp_path / "none.safetensors"))
    assert failed.returncode == 1
    assert failed.stderr == f"there is no checkpoint {tmp_path / 'none.safetensors'}\n"
