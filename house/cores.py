"""Leaves a core to other programs: two threads that wait for each other crawl when one core is taken."""

import os
import time
from pathlib import Path

import torch

CHECK_EVERY_SECONDS = 3.0
_STAT = Path("/proc/stat")


def _busy_seconds() -> float:
    """CPU time that all programs of this machine have used since it started, over all cores."""
    user, nice, system = (int(field) for field in _STAT.read_text().split(maxsplit=4)[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


class CoreSharing:
    """Sets PyTorch's thread count to the cores that other programs leave free, at least one."""

    def __init__(self) -> None:
        self._cores = os.cpu_count() or 1
        self._marks = self._read_marks() if _STAT.exists() else None

    @staticmethod
    def _read_marks() -> tuple[float, float, float]:
        return time.monotonic(), _busy_seconds(), time.process_time()

    def adapt(self) -> None:
        """Looks at the last seconds' load; cheap enough to call at every step."""
        if self._marks is None or time.monotonic() - self._marks[0] < CHECK_EVERY_SECONDS:
            return
        former, self._marks = self._marks, self._read_marks()
        elapsed, busy, own = (now - then for now, then in zip(self._marks, former, strict=True))
        taken = round((busy - own) / elapsed)
        wanted = max(1, self._cores - taken)
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)
