"""How long jobs are kept: a deployment may end the life of results, and of jobs that nobody starts."""

import math
from datetime import timedelta

from services.common.times import now
from services.inference.deletion import JobDeletion
from services.inference.repository import Jobs

ACTOR = "inference"
ROUND_SECONDS = 300.0


def days(text: str) -> float:
    """Parse a number of days; 0 is for ever."""
    number = float(text)
    if not (math.isfinite(number) and 0 <= number <= 36500):
        raise ValueError("it must be a number of days, 0 for never")
    return number


class Lifetimes:
    """Deletes what is older than the deployment keeps it; killed anywhere, the next round goes on."""

    def __init__(self, jobs: Jobs, deletion: JobDeletion, results_days: float, unstarted_days: float) -> None:
        self._jobs = jobs
        self._deletion = deletion
        self._kinds = ((results_days, jobs.ended_before), (unstarted_days, jobs.unstarted_before))

    def sweep(self) -> int:
        """Delete jobs that have outlived their time, as their users would; how many."""
        began, deleted = now(), 0
        for kept, find in self._kinds:
            if not kept:
                continue
            while now() - began < timedelta(seconds=ROUND_SECONDS):
                outlived = find(began - timedelta(days=kept))
                hidden = [self._jobs.hide_outlived(job, ACTOR) for job in outlived]
                for job in hidden:
                    if job is not None:
                        self._deletion.finish(job)
                        deleted += 1
                if not outlived:
                    break
        return deleted
