"""Stores and completes finished jobs in the background while the loop computes the next."""

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from gpu_worker import metrics, tracing
from gpu_worker.client import ServiceClient
from gpu_worker.errors import Dropped, Passing, ServiceRefused, ServiceUnreachable
from gpu_worker.lease import Lease
from gpu_worker.logs import log_ids
from gpu_worker.results import Uploader, encode_files, image_names, summary
from gpu_worker.tasks import TaskResult

log = logging.getLogger(__name__)

JOBS_AT_ONCE = 4
MOST_PENDING = 16
MOST_PIXELS = 64 * 1024 * 1024


class Publisher:
    """Publishes a few jobs side by side; who brings more than fit waits, its lease renewed as ever.

    What fits is bounded by the pixels of the pictures that wait, so that memory is.
    """

    def __init__(self, client: ServiceClient, uploader: Uploader, done: Callable[[Lease], None]) -> None:
        self._client = client
        self._uploader = uploader
        self._done = done
        self._pool = ThreadPoolExecutor(JOBS_AT_ONCE, thread_name_prefix="publisher")
        self._changed = threading.Condition()
        self._pending: dict[Lease, int] = {}

    def publish(self, lease: Lease, parameters: Mapping[str, Any], result: TaskResult) -> None:
        """Takes over a job whose pictures are made, with its lease."""
        size = sum(picture.image.width * picture.image.height for picture in result.pictures)
        with self._changed:
            self._changed.wait_for(lambda: not self._pending or self._fits(size))
            self._pending[lease] = size
        self._pool.submit(self._publish, lease, parameters, result)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until nothing is being published; False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending, timeout)

    def close(self) -> None:
        """Ends the threads once they have nothing to do."""
        self._pool.shutdown(wait=False)
        self._uploader.close()

    def _fits(self, size: int) -> bool:
        return len(self._pending) < MOST_PENDING and sum(self._pending.values()) + size <= MOST_PIXELS

    def _publish(self, lease: Lease, parameters: Mapping[str, Any], result: TaskResult) -> None:
        with log_ids(job_id=lease.job.id, request_id=lease.job.request_id):
            try:
                self._store(lease, parameters, result)
            except Dropped as reason:
                log.info("result dropped", extra={"reason": type(reason).__name__})
                _count(lease, "dropped")
            except Passing as fault:
                _count(lease, fault.kind)
                fail_quietly(self._client, lease, fault.kind, str(fault))
            except (ServiceUnreachable, ServiceRefused) as error:
                log.error("the job could not be completed in its lease", extra={"reason": str(error)})
            except Exception:
                log.exception("publishing failed")
                fail_quietly(self._client, lease, "passing", "the worker could not store the result")
            finally:
                lease.close()
                self._done(lease)
                with self._changed:
                    del self._pending[lease]
                    self._changed.notify_all()

    def _store(self, lease: Lease, parameters: Mapping[str, Any], result: TaskResult) -> None:
        job, names = lease.job, image_names(len(result.pictures))
        files = encode_files(job, parameters, result)
        lease.mark("encoded_at")

        def ask_urls(wanted: list[str]) -> Mapping[str, str]:
            return lease.persist(lambda: self._client.uploads(job, wanted))

        self._uploader.upload(files, lease.upload_urls(), ask_urls)
        lease.mark("uploaded_at")
        lease.persist(lambda: self._client.complete(job, names, summary(result.info), lease.timings))
        metrics.completed(job.task_type, len(names), lease.timings)
        tracing.record_attempt(job, lease.timings, "completed")
        log.info("job completed", extra={"images": len(names), "durations_ms": durations(lease.timings)})


def _count(lease: Lease, outcome: str) -> None:
    metrics.ended(lease.job.task_type, outcome)
    tracing.record_attempt(lease.job, lease.timings, outcome)


def durations(timings: Mapping[str, float]) -> dict[str, int]:
    """Milliseconds between a job's recorded moments, for its log line."""
    moments = list(timings.items())
    pairs = pairwise(moments)
    return {later.removesuffix("_at"): round((end - start) * 1000) for (_, start), (later, end) in pairs}


def fail_quietly(client: ServiceClient, lease: Lease, kind: str, message: str) -> None:
    """Reports a failed attempt; when even that cannot be said, the lease ends by itself and says as much."""
    try:
        lease.persist(lambda: client.fail(lease.job, kind, message))
    except Dropped:
        log.info("failure not wanted any more")
    except (ServiceUnreachable, ServiceRefused) as error:
        log.error("failure not reported", extra={"reason": str(error)})
