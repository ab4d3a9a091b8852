"""JSON log lines on stderr that carry the ids of the job and of the request it came from."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

_ids: ContextVar[dict[str, str | int] | None] = ContextVar("log_ids", default=None)


class _AddIds(logging.Filter):
    """Puts the current ids on every record."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in (_ids.get() or {}).items():
            setattr(record, name, value)
        return True


@contextmanager
def log_ids(**ids: str | int) -> Iterator[None]:
    """Adds ids to every line that this thread logs inside the block."""
    token = _ids.set({**(_ids.get() or {}), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def configure_logging(level: str, worker_id: str) -> None:
    """Sends every logger of the process to stderr, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_AddIds())
    handler.setFormatter(
        JsonFormatter(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            static_fields={"service": "gpu_worker", "worker_id": worker_id},
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These libraries log URLs (presigned ones hold signatures) or every message and every weight.
    for noisy in ("urllib3", "kombu", "celery", "amqp", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for noisy in ("diffusers", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
