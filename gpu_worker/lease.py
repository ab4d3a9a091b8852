"""Holds the lease of one job: a thread reports progress, renews the lease and hears when to stop."""

import base64
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from gpu_worker.client import Event, ProgressReport, ServiceClient
from gpu_worker.errors import AttemptLost, Cancelled, Dropped, Released, ServiceRefused, ServiceUnreachable
from gpu_worker.jobs import Job
from gpu_worker.logs import log_ids

log = logging.getLogger(__name__)

COALESCE_SECONDS = 0.25
RENEW_SECONDS = 2.0
RETRY_SECONDS = 0.5
URLS_WAIT_SECONDS = 5.0
PREVIEW_SECONDS = 1.0

Result = TypeVar("Result")


class Lease:
    """One attempt at one job, as long as this worker holds it.

    The computing thread calls `start`, `step` and `check`, which raise `Dropped` once the work is not wanted
    any more; they never wait for the network. Ordinary steps are coalesced to one call in a quarter of a
    second, the first and the last step are sent at once.
    """

    def __init__(
        self, client: ServiceClient, job: Job, must_release: Callable[[], bool] = lambda: False
    ) -> None:
        self.job = job
        self.timings: dict[str, float] = {"claimed_at": time.time()}
        self._client = client
        self._must_release = must_release
        self._changed = threading.Condition()
        self._closed = False
        self._drop: Dropped | None = None
        self._report = ProgressReport()
        self._events: deque[ProgressReport] = deque()
        self._is_due = False
        self._wanted_files: list[str] | None = None
        self._urls: Mapping[str, str] | None = None
        self._preview: tuple[bytes, int, int] | None = None
        self._previewed_at = 0.0
        self._last_call = time.monotonic()
        self._deadline = time.monotonic() + job.lease_seconds
        self._renew_seconds = min(RENEW_SECONDS, job.lease_seconds / 4)
        self._thread = threading.Thread(target=self._run, name=f"lease-{job.id}", daemon=True)
        self._thread.start()

    @property
    def deadline(self) -> float:
        """When the lease ends unless it is renewed, on the monotonic clock."""
        return self._deadline

    def start(self, images: int, steps: int) -> None:
        """Announces how many pictures of how many steps the job makes."""
        with self._changed:
            self._report = ProgressReport(steps=steps, images=images)

    def step(self, step: int, finished: int, batch: int) -> None:
        """Records a step of a `batch` of pictures after `finished` others; raises `Dropped`."""
        now = time.time()
        with self._changed:
            before = self._report
            self._report = replace(before, step=step, image=finished, at=now, event=None)
            if "first_step_at" not in self.timings:
                self._add_event("first_step", now)
            if step == before.steps and finished + batch == before.images:
                self._add_event("last_step", now)
            self._is_due = True
            self._changed.notify()
        self.check()

    def preview_due(self) -> bool:
        """Whether a preview is wanted now: the last one is a second old, and has been sent."""
        is_old = time.monotonic() - self._previewed_at >= PREVIEW_SECONDS
        return self.job.preview and is_old and self._preview is None

    def show(self, jpeg: bytes, step: int, image: int) -> None:
        """Leaves a preview to be sent."""
        with self._changed:
            self._preview = jpeg, step, image
            self._previewed_at = time.monotonic()
            self._is_due = True
            self._changed.notify()

    def check(self) -> None:
        """Raises `Cancelled`, `AttemptLost` or `Released` when the work is to stop."""
        if self._drop is not None:
            raise self._drop
        if self._must_release():
            raise Released(f"job {self.job.id}")

    def mark(self, name: str) -> None:
        """Records a time for the job's timings."""
        self.timings[name] = time.time()

    def ask_service(self) -> None:
        """Asks at once whether the job is still wanted (a bell said that it may not be)."""
        with self._changed:
            self._is_due = True
            self._last_call = 0.0
            self._changed.notify()

    def prepare_uploads(self, files: Sequence[str]) -> None:
        """Lets the thread fetch upload URLs after the last step, while pictures are still decoded."""
        with self._changed:
            self._wanted_files = list(files)

    def upload_urls(self) -> Mapping[str, str]:
        """The URLs that were prepared; empty when there are none."""
        with self._changed:
            if self._wanted_files is not None:
                self._changed.wait_for(lambda: self._urls is not None or self._drop, URLS_WAIT_SECONDS)
            return self._urls or {}

    def persist(self, call: Callable[[], Result]) -> Result:
        """Repeats a call until it succeeds or the lease is over; raises what the last try raised."""
        pause = RETRY_SECONDS / 4
        while True:
            try:
                return call()
            except (ServiceUnreachable, ServiceRefused) as error:
                if time.monotonic() + pause > self._deadline or isinstance(error, ServiceRefused):
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 2.0)

    def close(self) -> None:
        """Ends the thread; the lease is left to end by itself."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _add_event(self, event: Event, now: float) -> None:
        self.timings[f"{event}_at"] = now
        self._events.append(replace(self._report, event=event))

    def _run(self) -> None:
        with log_ids(job_id=self.job.id, request_id=self.job.request_id):
            while (report := self._wait_for_report()) is not None:
                self._send(report)
                self._send_preview()
                self._fetch_urls()

    def _wait_for_report(self) -> ProgressReport | None:
        """Waits until an event, a step or a renewal is due; None when the lease is closed."""
        with self._changed:
            while not self._closed and self._drop is None:
                if self._events:
                    return self._events[0]
                waiting = time.monotonic() - self._last_call
                rest = (COALESCE_SECONDS if self._is_due else self._renew_seconds) - waiting
                if rest <= 0:
                    return self._report
                self._changed.wait(rest)
            self._changed.notify_all()
            return None

    def _send(self, report: ProgressReport) -> None:
        self._is_due = False
        sent = time.monotonic()
        try:
            answer = self._client.progress(self.job, report)
        except AttemptLost as error:
            self._stop(error)
            return
        except (ServiceUnreachable, ServiceRefused) as error:
            log.warning("progress not taken", extra={"reason": str(error)})
            self._pause()
            return
        if report.event:
            self._events.popleft()
        self._last_call = sent
        self._deadline = sent + answer.lease_seconds
        if answer.cancel:
            self._stop(Cancelled(f"job {self.job.id}"))

    def _send_preview(self) -> None:
        """Sends what is shown, once: the next one is better than a repetition."""
        if self._preview is None or self._drop is not None:
            return
        jpeg, step, image = self._preview
        try:
            self._client.preview(self.job, step, image, base64.b64encode(jpeg).decode())
        except AttemptLost as error:
            self._stop(error)
        except (ServiceUnreachable, ServiceRefused) as error:
            log.warning("preview not taken", extra={"reason": str(error)})
        self._preview = None

    def _pause(self) -> None:
        with self._changed:
            if not self._closed:
                self._changed.wait(RETRY_SECONDS)

    def _fetch_urls(self) -> None:
        if self._wanted_files is None or self._urls is not None or "last_step_at" not in self.timings:
            return
        if self._events:
            return
        urls: Mapping[str, str] = {}
        try:
            urls = self._client.uploads(self.job, self._wanted_files)
        except AttemptLost as error:
            self._stop(error)
        except (ServiceUnreachable, ServiceRefused):
            log.warning("upload URLs not given yet")
        with self._changed:
            self._urls = urls
            self._changed.notify_all()

    def _stop(self, reason: Dropped) -> None:
        with self._changed:
            self._drop = reason
            self._changed.notify_all()
