"""Traces, where OTEL_EXPORTER_OTLP_ENDPOINT names somebody who takes them; elsewhere nothing is imported.

The OpenTelemetry SDK reads its other settings (OTEL_EXPORTER_OTLP_HEADERS, …) itself. A job carries its trace
as a W3C `traceparent` from the request that started it to the worker and its webhooks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from celery.signals import worker_process_init
from flask import Flask

from services.common.settings import SettingsError

if TYPE_CHECKING:
    from services.common.spans import Spans

MISSING = "traces need more packages, pip install '.[traces]'"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

_spans: "Spans | None" = None


def _begin(service: str) -> "Spans | None":
    """Start to send spans, once per process; None where nobody takes them."""
    global _spans
    if _spans is None and os.environ.get(ENDPOINT):
        try:
            from services.common.spans import Spans
        except ImportError as missing:
            raise SettingsError(f"{ENDPOINT} is set: {MISSING} ({missing})") from missing
        _spans = Spans(service)
    return _spans


def trace_requests(app: Flask, service: str) -> None:
    """Make a span of every request; to be called before anything else is asked of requests."""
    if spans := _begin(service):
        spans.of_requests(app)


def trace_tasks(service: str) -> None:
    """Make a span of every task of a Celery worker, but for those that beat asks for."""
    if os.environ.get(ENDPOINT):

        def begin(**_: Any) -> None:
            if spans := _begin(f"{service}-tasks"):
                spans.of_tasks()

        worker_process_init.connect(begin, weak=False)


def begin_request(path: str, request_id: str) -> None:
    """Say which request is being answered, once its span has begun."""
    if _spans:
        _spans.begin_request(path, request_id)


def note(**attributes: str | int) -> None:
    """Say more of what is being done: ids and durations, never bodies, prompts, tokens or presigned URLs."""
    if _spans:
        _spans.note(attributes)


def traceparent() -> str | None:
    """Where a part that goes on with the current work hangs its spans."""
    return _spans.traceparent() if _spans else None


def headers() -> dict[str, str]:
    """The headers that carry the trace to another service."""
    carried = traceparent()
    return {"Traceparent": carried} if carried else {}


def record(
    name: str, parent: str | None, begin: datetime | None, end: datetime | None, **attributes: str | int
) -> None:
    """A span of what is over, in the trace that `parent` names."""
    if _spans and parent and begin and end:
        _spans.record(name, parent, begin, end, attributes)


@contextmanager
def span(name: str, parent: str | None, **attributes: str | int) -> Iterator[None]:
    """A span of the block, in the trace that `parent` names; none where there is no trace."""
    if _spans is None or not parent:
        yield
        return
    with _spans.span(name, parent, attributes):
        yield
