"""``python -m gpu_worker serve``: the container's HTTP server on SageMaker."""

import logging
import os

from flask import Flask
from gunicorn.app.base import BaseApplication

from gpu_worker.config import ServeConfig
from gpu_worker.engine_thread import EngineThread, Runner
from gpu_worker.sagemaker_front import create_app

# gunicorn ends with its worker when that ends with this code, so that the container is started anew.
EXIT_MACHINE_FAULT = 3
# One job computes, some wait, and /ping is always answered.
THREADS = 8


class Server(BaseApplication):
    """gunicorn with one worker process: the engine is loaded there, after the fork, as CUDA wants it."""

    def __init__(self, config: ServeConfig) -> None:
        self._config = config
        super().__init__()

    def load_config(self) -> None:
        """gunicorn's settings; it reads no files and no arguments."""
        settings = {
            "bind": f"0.0.0.0:{self._config.port}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": THREADS,
            "graceful_timeout": int(self._config.grace_seconds),
            "timeout": 120,
            "keepalive": 75,
            "accesslog": None,
            "loglevel": "warning",
            "control_socket_disable": True,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """The application of the worker process."""
        return create_app(EngineThread(self._load_engine, _end_process), _end_process)

    def _load_engine(self) -> Runner:
        # Importing torch and diffusers takes seconds; /ping is answered meanwhile.
        from gpu_worker.invocation_runner import InvocationRunner

        return InvocationRunner(self._config)


def _end_process() -> None:
    """Not sys.exit: it would wait for other requests and for torch's slow end."""
    logging.shutdown()
    os._exit(EXIT_MACHINE_FAULT)
