"""From claimed jobs to their outcomes: parameters read side by side, pictures of compatible jobs together."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests

from gpu_worker.errors import MachineFault
from gpu_worker.files import FileCache
from gpu_worker.lease import Lease
from gpu_worker.logs import log_ids
from gpu_worker.parameter_file import read_parameters
from gpu_worker.parameters import parse_document
from gpu_worker.pipelines import ModelMemory
from gpu_worker.results import result_files
from gpu_worker.safety import SafetyFilter
from gpu_worker.styles import NO_STYLES, Styles
from gpu_worker.tasks import Task, TaskContext, TaskResult, find_task
from gpu_worker.text_to_image import PictureTask
from gpu_worker.together import Outcome, PictureJob, make_together

log = logging.getLogger(__name__)

PARAMETERS_AT_ONCE = 8


class Computing:
    """Runs jobs with the engine; it belongs to the loop's thread."""

    def __init__(
        self,
        files: FileCache,
        memory: ModelMemory,
        tasks: Mapping[str, Task],
        session: requests.Session,
        safety: SafetyFilter | None = None,
        styles: Styles = NO_STYLES,
    ) -> None:
        self._safety = safety
        self._files = files
        self._memory = memory
        self._tasks = tasks
        self._session = session
        self._styles = styles
        self._reading = ThreadPoolExecutor(PARAMETERS_AT_ONCE, thread_name_prefix="parameters")

    def close(self) -> None:
        """Ends the threads."""
        self._reading.shutdown(wait=False, cancel_futures=True)

    def outcomes(self, leases: Sequence[Lease]) -> Iterator[tuple[Lease, Mapping[str, Any], Outcome]]:
        """Gives every lease with its parameters and outcome once that is known; raises `MachineFault`."""
        together: dict[str, _Begun] = {}
        alone: list[_Begun] = []
        for lease, read in zip(leases, self._reading.map(self._read, leases), strict=True):
            begun = read if isinstance(read, Exception) else self._begin(lease, read)
            if isinstance(begun, Exception):
                yield lease, {}, begun
            elif isinstance(begun.work, PictureJob):
                together[lease.job.id] = begun
            else:
                alone.append(begun)
        jobs = [begun.work for begun in together.values() if isinstance(begun.work, PictureJob)]
        for job, outcome in make_together(jobs, self._memory.device.batch_pixels):
            begun = together[job.context.job.id]
            yield begun.lease, begun.parameters, outcome
        for begun in alone:
            yield begun.lease, begun.parameters, self._run_alone(begun)

    def _read(self, lease: Lease) -> dict[str, Any] | Exception:
        """One job's parameters; what it raises is that job's end."""
        with ids_of(lease):
            log.info("job claimed", extra={"attempt": lease.job.attempt, "endpoint": lease.job.endpoint})
            try:
                find_task(lease.job.task_type, self._tasks)
                parameters = parse_document(read_parameters(self._session, lease.job.parameters_url))
                lease.mark("parameters_at")
                return parameters
            except Exception as reason:
                return reason

    def _begin(self, lease: Lease, parameters: Mapping[str, Any]) -> "_Begun | Exception":
        """Checks one job's request; what it raises is that job's end."""
        context = TaskContext(
            job=lease.job,
            parameters=parameters,
            memory=self._memory,
            open_file=lambda model: self._files.open(model, lease.check),
            progress=_Progress(lease),
            safety=self._safety,
            previews=lease if lease.job.preview else None,
            styles=self._styles,
        )
        task = find_task(lease.job.task_type, self._tasks)
        with ids_of(lease):
            try:
                work = task.prepare(context) if isinstance(task, PictureTask) else partial(task, context)
            except MachineFault:
                raise
            except Exception as reason:
                return reason
        return _Begun(lease, parameters, work)

    def _run_alone(self, begun: "_Begun") -> Outcome:
        with ids_of(begun.lease):
            try:
                assert not isinstance(begun.work, PictureJob)
                return begun.work()
            except MachineFault:
                raise
            except Exception as reason:
                return reason


@dataclass(frozen=True, slots=True)
class _Begun:
    """A job whose request was read: pictures that may be made with others', or all of its work."""

    lease: Lease
    parameters: Mapping[str, Any]
    work: PictureJob | Callable[[], TaskResult]


def ids_of(lease: Lease) -> AbstractContextManager[None]:
    """Adds the ids of a lease's job to what is logged inside the block."""
    return log_ids(job_id=lease.job.id, request_id=lease.job.request_id)


class _Progress:
    """A lease as tasks see it: once the number of pictures is known, upload URLs can be prepared."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self.step = lease.step
        self.check = lease.check

    def start(self, images: int, steps: int) -> None:
        """Announces the pictures to the service and to the upload."""
        self._lease.prepare_uploads(result_files(self._lease.job, images))
        self._lease.start(images, steps)
