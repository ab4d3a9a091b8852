"""A span of each attempt, in its job's trace; nothing is imported where nobody takes spans.

OTEL_EXPORTER_OTLP_ENDPOINT names who takes them; the OpenTelemetry SDK reads its other settings itself.
"""

import os
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from gpu_worker.config import ConfigError
from gpu_worker.jobs import Job

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

_tracer: Any = None


def begin() -> None:
    """Start to send spans, from a thread, where somebody takes them."""
    global _tracer
    if _tracer is not None or not os.environ.get(ENDPOINT):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as missing:
        needed = "traces need more packages, pip install '.[traces]'"
        raise ConfigError(f"{ENDPOINT} is set: {needed} ({missing})") from missing

    resource = Resource.create({"service.name": "gpu_worker", "service.namespace": "sdfleet"})
    # The service decides whether a job is traced: only jobs that are bring a parent.
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("sdfleet")


def record_attempt(job: Job, timings: Mapping[str, float], outcome: str) -> None:
    """An attempt that is over, with a span for each of its parts; `timings` are epoch seconds."""
    if _tracer is None or not job.traceparent or not timings:
        return
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    moments = list(timings.items())
    attributes: dict[str, str | int] = {
        "sdfleet.job_id": job.id,
        "sdfleet.request_id": job.request_id,
        "sdfleet.attempt": job.attempt,
        "sdfleet.task_type": job.task_type,
        "sdfleet.outcome": outcome,
    }
    attempt = _tracer.start_span(
        f"attempt {job.task_type}",
        context=TraceContextTextMapPropagator().extract({"traceparent": job.traceparent}),
        attributes=attributes,
        start_time=_nanoseconds(moments[0][1]),
    )
    inside = trace.set_span_in_context(attempt)
    for (_, start), (name, end) in pairwise(moments):
        part = _tracer.start_span(
            f"until {name.removesuffix('_at')}", context=inside, start_time=_nanoseconds(start)
        )
        part.end(_nanoseconds(end))
    attempt.end(_nanoseconds(moments[-1][1]))


def _nanoseconds(moment: float) -> int:
    return int(moment * 1_000_000) * 1000
