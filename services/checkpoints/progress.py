"""How far an import is, told every second."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from services.checkpoints.errors import Cancelled

PROGRESS_SECONDS = 1.0


class Progress:
    """What all files of an import have received, told every second."""

    def __init__(self, tell: Callable[[dict[str, Any]], None], files: int) -> None:
        self._tell = tell
        self._bytes = [0] * files
        self._totals: list[int | None] = [None] * files
        self._lock = threading.Lock()
        self._told = 0.0
        self._began: tuple[float, int] | None = None
        self.stop = threading.Event()

    def note(self, index: int, received: int, total: int | None) -> None:
        """A file is at `received` of `total` bytes. Raises Cancelled when the import is to end."""
        if self.stop.is_set():
            raise Cancelled
        self._bytes[index], self._totals[index] = received, total
        moment = time.monotonic()
        if moment - self._told < PROGRESS_SECONDS:
            return
        with self._lock:
            if moment - self._told < PROGRESS_SECONDS:
                return
            self._told = moment
        self._tell(self._figures(moment))

    def pause(self, seconds: float) -> None:
        """Wait before another try."""
        if self.stop.wait(seconds):
            raise Cancelled

    def _figures(self, moment: float) -> dict[str, Any]:
        done, total = sum(self._bytes), _sum(self._totals)
        if self._began is None:
            self._began = moment, done
        rate = (done - self._began[1]) / max(moment - self._began[0], 0.001)
        left = round((total - done) / rate, 1) if total is not None and rate > 0 else None
        return {"bytes": done, "total": total, "bytes_per_second": round(rate), "remaining_seconds": left}


def _sum(totals: Sequence[int | None]) -> int | None:
    known = [total for total in totals if total is not None]
    return sum(known) if len(known) == len(totals) else None
