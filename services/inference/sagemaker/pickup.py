"""Picks up answers and failures that SageMaker has put into S3, and gives up attempts that have none."""

from concurrent.futures import ThreadPoolExecutor

from services.common.times import now
from services.inference.sagemaker.outcome import LARGEST_ANSWER, Failed, Made, read_answer, read_failure
from services.inference.sagemaker.repository import Invocation, Invocations
from services.inference.sagemaker.settling import Settling, attempt_of
from services.inference.sagemaker.storage import InvocationStorage

LOOKS_AT_ONCE = 8
LARGEST_FAILURE = 65536


class PickUp:
    """Looks at every invocation that is open; killed anywhere, the next look goes on."""

    def __init__(self, invocations: Invocations, storage: InvocationStorage, settling: Settling) -> None:
        self._invocations = invocations
        self._storage = storage
        self._settling = settling

    def look(self) -> int:
        """Look at all that are due, unless another process does; how many."""
        with self._invocations.turn("pick up") as taken:
            due = self._invocations.due() if taken else []
            with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="pick-up") as pool:
                return sum(1 for _ in pool.map(self.look_at, due))

    def look_at(self, invocation: Invocation) -> None:
        """Settle one that has an answer, give up one whose time is over, tidy up after one that is over."""
        outcome = self._outcome(invocation)
        if self._settling.is_held(invocation):
            if outcome is None and now() < invocation["over_at"]:
                return
            self._settling.settle(invocation, outcome or _no_answer(invocation))
        self._settling.tidy(invocation, answered=outcome is not None)

    def _outcome(self, invocation: Invocation) -> Made | Failed | None:
        job_id, _, attempt = attempt_of(invocation)
        if invocation["output"]:
            answer = self._storage.read(invocation["output"], LARGEST_ANSWER)
            if answer is not None:
                return read_answer(answer, job_id, attempt)
        if invocation["failure"]:
            failure = self._storage.read(invocation["failure"], LARGEST_FAILURE)
            if failure is not None:
                return read_failure(failure)
        return None


def _no_answer(invocation: Invocation) -> Failed:
    seconds = invocation["seconds"]
    return Failed("passing", f"no answer came from the SageMaker endpoint within {seconds} s")
