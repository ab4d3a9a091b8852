"""Runs one invocation with the engine that also runs claimed jobs."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from gpu_worker.client import make_session
from gpu_worker.config import EngineConfig
from gpu_worker.device import choose_device
from gpu_worker.errors import Passing, RequestFault
from gpu_worker.files import FileCache
from gpu_worker.invocation import Invocation
from gpu_worker.logs import log_ids
from gpu_worker.parameter_file import read_parameters
from gpu_worker.parameters import check_depth, parse_document
from gpu_worker.pipelines import ModelMemory
from gpu_worker.publisher import durations
from gpu_worker.results import (
    Uploader,
    encode_files,
    image_names,
    parameter_name,
    result_files,
    summary,
)
from gpu_worker.safety import load_filter
from gpu_worker.tasks import TaskContext, find_task
from gpu_worker.worker import TASKS

log = logging.getLogger(__name__)


class InvocationRunner:
    """The engine as SageMaker's front uses it; `run` belongs to one thread."""

    def __init__(self, config: EngineConfig) -> None:
        self.device = choose_device(config.precision, config.batch_pixels, config.compiled)
        self._session = make_session()
        self._files = FileCache(config.cache_dir, config.disk_cache_bytes, self._session)
        self._memory = ModelMemory(self.device, config.memory_cache_bytes, ram_bytes=config.ram_cache_bytes)
        self._uploader = Uploader(self._session)
        self._safety = load_filter(config)
        self._styles = config.styles

    def run(self, invocation: Invocation) -> dict[str, Any]:
        """Makes and uploads the results; returns the answer of docs/internals.md.

        Raises `RequestFault`, `Passing` or `MachineFault`.
        """
        job, watch = invocation.job, Watch(invocation)
        with log_ids(job_id=job.id, request_id=job.request_id):
            log.info("invocation begun", extra={"attempt": job.attempt})
            watch.check()
            task = find_task(job.task_type, TASKS)
            parameters = self._parameters(invocation)
            watch.mark("parameters_at")
            result = task(
                TaskContext(
                    job=job,
                    parameters=parameters,
                    memory=self._memory,
                    open_file=lambda model: self._files.open(model, watch.check),
                    progress=watch,
                    safety=self._safety,
                    styles=self._styles,
                )
            )
            watch.mark("decoded_at")
            files = encode_files(job, parameters, result)
            watch.mark("encoded_at")
            watch.check_files(files)
            self._uploader.upload(files, invocation.uploads, _no_other_addresses)
            watch.mark("uploaded_at")
            log.info(
                "invocation done",
                extra={"images": len(result.pictures), "durations_ms": durations(watch.timings)},
            )
        return {
            "status": 200,
            "message": "completed",
            "id": job.id,
            "attempt": job.attempt,
            "image_names": image_names(len(result.pictures)),
            "parameters": parameter_name(job),
            "info": summary(result.info),
            "timings": watch.timings,
        }

    def _parameters(self, invocation: Invocation) -> Mapping[str, Any]:
        if invocation.parameters is None:
            return parse_document(read_parameters(self._session, invocation.job.parameters_url))
        check_depth(invocation.parameters)
        return invocation.parameters


class Watch:
    """An invocation's progress: it keeps the times, and stops work whose addresses are no longer valid."""

    def __init__(self, invocation: Invocation) -> None:
        self.timings: dict[str, float] = {"claimed_at": time.time()}
        self._invocation = invocation
        self._images = self._steps = 0

    def start(self, images: int, steps: int) -> None:
        """Announces the pictures; raises `RequestFault` when there are more of them than addresses."""
        self._images, self._steps = images, steps
        self.check_files(result_files(self._invocation.job, images))

    def step(self, step: int, finished: int, batch: int) -> None:
        """Notes the first and the last step; raises `Passing` when the time is over."""
        if "first_step_at" not in self.timings:
            self.mark("first_step_at")
        if step == self._steps and finished + batch == self._images:
            self.mark("last_step_at")
        self.check()

    def check(self) -> None:
        """Raises `Passing` when the time is over."""
        if time.time() >= self._invocation.expires_at:
            raise Passing("the time of this attempt was over before its pictures were made")

    def check_files(self, names: Any) -> None:
        """Raises `RequestFault` unless every file has an address."""
        missing = [name for name in names if name not in self._invocation.uploads]
        if missing:
            raise RequestFault(
                f"the job makes {len(names)} files, and uploads has no address for {missing[0]}"
            )

    def mark(self, name: str) -> None:
        """Records a time."""
        self.timings[name] = time.time()


def _no_other_addresses(names: list[str]) -> Mapping[str, str]:
    raise Passing(f"the result {names[0]} could not be stored: the storage does not take it")
