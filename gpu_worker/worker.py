"""Puts a worker together: engine, loop, heartbeat and bells, and their orderly end."""

import logging
import signal
import socket
import threading
from collections.abc import Mapping
from typing import Any

from gpu_worker import VERSION, background, extras, interrogation, metrics, tracing
from gpu_worker.bells import Bells
from gpu_worker.client import ServiceClient, make_session
from gpu_worker.config import WorkerConfig
from gpu_worker.device import Device, choose_device
from gpu_worker.files import FileCache
from gpu_worker.heartbeat import Heartbeat
from gpu_worker.long_work import LongWork
from gpu_worker.loop import Loop
from gpu_worker.pipelines import ModelMemory
from gpu_worker.safety import load_filter, safe
from gpu_worker.tasks import Task
from gpu_worker.text_to_image import run as text_to_image
from gpu_worker.text_to_image import run_from_pictures as image_to_image
from gpu_worker.training.work import WorkClient

log = logging.getLogger(__name__)

TASKS: Mapping[str, Task] = {
    "txt2img": text_to_image,
    "img2img": image_to_image,
    "extra-single-image": safe(extras.run_single),
    "extra-batch-images": safe(extras.run_batch),
    "rembg": safe(background.run),
    "interrogate_clip": interrogation.run_clip,
    "interrogate_deepbooru": interrogation.run_deepbooru,
}


class Worker:
    """One worker process on one device."""

    def __init__(self, config: WorkerConfig, device: Device | None = None) -> None:
        self.config = config
        self.device = device or choose_device(config.precision, config.batch_pixels, config.compiled)
        client = ServiceClient(config)
        session = make_session()
        self.memory = ModelMemory(
            self.device, config.memory_cache_bytes, self._changed, config.ram_cache_bytes
        )
        self.loop = Loop(
            client,
            FileCache(config.cache_dir, config.disk_cache_bytes, session),
            self.memory,
            TASKS,
            session,
            grace_seconds=config.grace_seconds,
            claim_seconds=config.claim_seconds,
            room=config.batch_jobs,
            safety=load_filter(config),
            styles=config.styles,
            on_change=self._changed,
        )
        self.long_work = LongWork(
            config, WorkClient(config), self._instance_type, self.may_train, self._changed
        )
        self.heartbeat = Heartbeat(
            client, self.describe, self.loop.assign, config.heartbeat_seconds, config.alive_file
        )
        self.bells = Bells(config.redis_url, self.loop.ring, self.loop.cancel)

    def describe(self) -> dict[str, Any]:
        """What the heartbeat says."""
        return {
            "host": socket.gethostname(),
            "instance_type": self._instance_type,
            "device": self.device.kind,
            "device_name": self.device.name,
            "memory_bytes": self.device.memory_bytes,
            "version": VERSION,
            "state": self.loop.state,
            "slots": self._slots,
            "loaded": self.memory.loaded_names,
            "running": self.loop.running + self.long_work.running,
            "endpoints": self.loop.endpoints,
        }

    def run(self) -> None:
        """Works until `stop` or SIGTERM; raises `MachineFault` when the device is lost."""
        tracing.begin()
        metrics.serve_metrics(self.config.metrics_listen)
        log.info("worker ready", extra={"device": self.device.kind, "device_name": self.device.name})
        self.heartbeat.start()
        self.bells.start()
        self.long_work.start()
        try:
            self.loop.run()
        finally:
            self.loop.stop()
            self.long_work.stop()
            self.long_work.join()
            self.bells.stop()
            self.heartbeat.stop()
            log.info("worker stopped")

    def stop(self) -> None:
        """Asks the worker to end; returns at once."""
        self.long_work.stop()
        self.loop.stop()

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT stop the worker.

        The handler starts a thread because the signal may arrive while its own thread holds the lock that
        `stop` needs.
        """

        def handle(_number: int, _frame: object) -> None:
            threading.Thread(target=self.stop, name="stop", daemon=True).start()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)

    @property
    def _instance_type(self) -> str:
        return self.config.instance_type or self.device.default_instance_type

    @property
    def _slots(self) -> int:
        """What endpoints may count on: a training occupies a slot, but takes none from an endpoint."""
        free_of_training = self.config.slots - len(self.long_work.running)
        return max(free_of_training, min(len(self.loop.endpoints), self.config.slots))

    def may_train(self) -> bool:
        """Whether a training may begin: no picture is being made, and a slot is free or has long been quiet.

        Endpoints that nobody uses would otherwise keep trainings away for ever, above all from an only GPU.
        """
        if self.loop.state != "idle":
            return False
        free = len(self.loop.endpoints) < self.config.slots
        return free or self.loop.quiet_seconds >= self.config.training_quiet_seconds

    def _changed(self) -> None:
        # Called by parts that are made before the heartbeat is.
        heartbeat = getattr(self, "heartbeat", None)
        if heartbeat is not None:
            heartbeat.changed()
