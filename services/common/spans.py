"""How traces are made and sent: imported only where somebody takes them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from flask import Flask
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.pymongo import PymongoInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.common.queues import PERIODIC

CARRIER = TraceContextTextMapPropagator()
# What is asked every second or two, and says nothing of any request of a client.
QUIET = ",".join(
    (
        "/healthz",
        "/readyz",
        "/internal/claim",
        "/internal/workers/[^/]+/heartbeat",
        "/internal/jobs/[^/]+/progress",
        "/internal/(backlog|audit|authenticate.*|jwks.json|openapi.json)$",
    )
)
WITH_QUERY = ("http.target", "http.url", "url.full", "url.query")
RATIO = "OTEL_TRACES_SAMPLER_ARG"

Attributes = Mapping[str, str | int]


class _Beginnings(Sampler):
    """Which spans may begin a trace: requests and other tasks than those that beat asks for.

    A query by itself is none: it belongs to work that is not traced.
    """

    def __init__(self, ratio: float) -> None:
        self._ratio = TraceIdRatioBased(ratio)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Any] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        """Drop what is not worth a trace of its own."""
        if kind in (SpanKind.CLIENT, SpanKind.PRODUCER) or name.removeprefix("run/") in PERIODIC:
            return SamplingResult(Decision.DROP)
        return self._ratio.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """As OpenTelemetry wants it."""
        return "sdfleet"


class Spans:
    """One process's spans, sent in batches from a thread."""

    def __init__(self, service: str) -> None:
        ratio = float(os.environ.get(RATIO) or 1)
        resource = Resource.create({"service.name": service, "service.namespace": "sdfleet"})
        self._provider = TracerProvider(sampler=ParentBased(_Beginnings(ratio)), resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("sdfleet")
        # Command names and collections; never what was asked for.
        PymongoInstrumentor().instrument(tracer_provider=self._provider, capture_statement=False)

    def of_requests(self, app: Flask) -> None:
        """Spans named by the route."""
        FlaskInstrumentor().instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=QUIET,
            enable_commenter=False,
        )

    def of_tasks(self) -> None:
        """Spans named by the task."""
        CeleryInstrumentor().instrument(tracer_provider=self._provider)

    def begin_request(self, path: str, request_id: str) -> None:
        """The request's id; and no query, which is the client's own and may hold anything."""
        current = trace.get_current_span()
        noted = getattr(current, "attributes", None) or {}
        current.set_attributes({name: path for name in WITH_QUERY if name in noted})
        current.set_attributes(_named({"request_id": request_id}))

    def note(self, attributes: Attributes) -> None:
        """Attributes of the current span."""
        trace.get_current_span().set_attributes(_named(attributes))

    def traceparent(self) -> str | None:
        """The current span, as W3C writes it."""
        carried: dict[str, str] = {}
        CARRIER.inject(carried)
        return carried.get("traceparent")

    def record(self, name: str, parent: str, begin: datetime, end: datetime, attributes: Attributes) -> None:
        """A span of what is over."""
        made = self._tracer.start_span(
            name, context=_context(parent), attributes=_named(attributes), start_time=_nanoseconds(begin)
        )
        made.end(_nanoseconds(end))

    @contextmanager
    def span(self, name: str, parent: str, attributes: Attributes) -> Iterator[None]:
        """A span of the block."""
        with self._tracer.start_as_current_span(
            name, context=_context(parent), attributes=_named(attributes), record_exception=False
        ):
            yield


def _context(traceparent: str) -> Context:
    return CARRIER.extract({"traceparent": traceparent})


def _named(attributes: Attributes) -> dict[str, str | int]:
    return {f"sdfleet.{name}": value for name, value in attributes.items()}


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
