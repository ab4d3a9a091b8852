"""JSON log lines with the request id; ids and durations, never bodies or secrets."""

import logging
import sys

from flask import g, has_request_context
from pythonjsonlogger.json import JsonFormatter


class _Context(logging.Filter):
    """Adds the service and, inside a request, its id to every record."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def filter(self, record: logging.LogRecord) -> bool:
        record.service = self.service
        if has_request_context():
            record.request_id = g.get("request_id")
        return True


def set_up_logs(service: str, level: str = "INFO") -> None:
    """Send every log record of this process to stderr as one JSON line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            timestamp=True,
            rename_fields={"levelname": "level", "name": "logger"},
        )
    )
    handler.addFilter(_Context(service))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("botocore", "boto3", "urllib3", "s3transfer", "pymongo"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Every retry is a warning there; what stays broken is said by whoever asked.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
