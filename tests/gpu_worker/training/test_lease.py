"""What a lease of long work tells, and when."""

from typing import Any
from unittest.mock import Mock

from gpu_worker.training.lease import WorkLease
from gpu_worker.training.outside import Attempt
from gpu_worker.training.work import Progress, Work
from tests.gpu_worker.training.test_session import work


class Client:
    """Takes reports until the work is complete, as the training service does."""

    def __init__(self) -> None:
        self.losses: list[tuple[int, float]] = []
        self.complete = False

    def report(self, _: Work, progress: Progress) -> tuple[bool, float]:
        if not self.complete:
            self.losses += progress.losses
        return False, 30.0

    def complete_work(self, *_: Any) -> None:
        self.complete = True


def test_every_loss_is_told_once_and_the_last_ones_before_the_end() -> None:
    client = Client()
    lease = WorkLease(client, work(), lambda: False)  # type: ignore[arg-type]
    attempt = Attempt(client, work(), lease, Mock(), Mock())  # type: ignore[arg-type]
    for step in range(1, 1201):
        attempt.note_loss(step, 0.5)
        if step % 300 == 0:
            lease.tell()
    attempt.note_loss(1201, 0.5)
    attempt.complete(None, True, {})
    lease.close()
    assert [step for step, _ in client.losses] == list(range(1, 1202))
