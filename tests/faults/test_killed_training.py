"""A worker that is killed in the middle of a training."""

from pathlib import Path
from typing import Any

import pytest

from tests.api.test_training import call, ended, look, training, violet_stars, wait_for
from tests.running import running_stack

STEPS = 60


def half_done(seen: dict[str, Any]) -> bool:
    assert seen["job_status"] != "Fail", seen["error"]
    return bool(seen["progress"]) and seen["progress"]["step"] >= STEPS // 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_training_of_a_killed_worker_goes_on_and_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINING_STATE_SECONDS", "1")
    with running_stack(tmp_path, LEASE_SECONDS="15") as running:
        violet_stars(running, "stars")
        training_id = training(running, "stars", max_train_steps=STEPS, output_name="survivor")
        wait_for(lambda: half_done(look(running, training_id)))
        assert running.stack.kill("worker-1")
        seen = ended(running, training_id)
        assert (seen["job_status"], seen["attempts"]) == ("Complete", 2), seen["error"]
        steps = [step for step, _ in seen["loss"]]
        assert steps == list(range(1, STEPS + 1))
        found = call(running, "GET", f"/checkpoints/{seen['checkpoint_id']}")["checkpoint"]
        assert (found["status"], found["name"]) == ("Active", ["survivor.safetensors"])
        log = (running.stack.folder / "logs" / "worker-1.log").read_text(encoding="utf-8")
        assert log.count("training goes on") == 1  # not from the beginning
