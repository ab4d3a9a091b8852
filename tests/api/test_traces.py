"""One trace from a client's request through the gateway to the worker and the webhook."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from stack.demo import journey
from tests.gateway.running import wait_for
from tests.inference.receiver import receiver
from tests.running import CHECKPOINT, PARAMETERS, Running, running_stack

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
REQUEST_ID = "a-request-of-this-test"
PROMPT = "a red circle that nobody may read"


@dataclass(frozen=True)
class Span:
    """A span as it was received."""

    service: str
    name: str
    trace: str
    attributes: dict[str, str]


@dataclass
class Collector:
    """Takes spans by OTLP over HTTP, as Jaeger, Tempo or an OpenTelemetry Collector do."""

    url: str = ""
    raw: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        return [
            Span(
                _texts(resource.resource.attributes)["service.name"],
                span.name,
                span.trace_id.hex(),
                _texts(span.attributes),
            )
            for body in list(self.raw)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def of(self, trace: str) -> list[Span]:
        return [span for span in self.spans if span.trace == trace]


def _texts(attributes: Any) -> dict[str, str]:
    found = {}
    for pair in attributes:
        kind = pair.value.WhichOneof("value")
        found[pair.key] = str(getattr(pair.value, kind)) if kind else ""
    return found


@contextmanager
def collector() -> Iterator[Collector]:
    running = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                running.raw.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield running
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def spans() -> Iterator[Collector]:
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, spans: Collector) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("traced")
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": spans.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "WEBHOOKS_ALLOW": "127.0.0.1",
    }
    with running_stack(folder, **settings) as ready:
        yield ready


def started(running: Running, webhook_url: str) -> str:
    """The id of a job that was started with this test's trace and request id."""
    wanted = {
        "user_id": running.artist.call("GET", "/users")["users"][0]["username"],
        "inference_type": "Async",
        "task_type": "txt2img",
        "models": {"Stable-diffusion": [CHECKPOINT.name]},
        "webhook_url": webhook_url,
    }
    with_trace = running.signed_in() | {"traceparent": TRACEPARENT, "x-request-id": REQUEST_ID}
    job = running.ask("POST", "/inferences", wanted, **with_trace).json()["data"]["inference"]
    parameters = PARAMETERS | {"prompt": PROMPT}
    requests.put(job["api_params_s3_upload_url"], json=parameters, timeout=30).raise_for_status()
    answer = running.ask("PUT", f"/inferences/{job['id']}/start?secret=in-the-query", **with_trace)
    assert answer.status_code == 202, answer.text
    return str(job["id"])


@pytest.mark.timeout(900)  # the first test waits for the stack
def test_one_trace_shows_request_service_worker_and_delivery(traced: Running, spans: Collector) -> None:
    with receiver() as hook:
        job_id = started(traced, hook.url)
        for _ in journey.follow_job(traced.artist, job_id):
            pass
        wait_for(lambda: bool(hook.came), 60)
    wait_for(lambda: any(span.name == "webhook" for span in spans.of(TRACE)), 60)
    wait_for(lambda: any(span.service == "gpu_worker" for span in spans.of(TRACE)), 60)
    wait_for(lambda: any(span.name.endswith("/complete") for span in spans.of(TRACE)), 60)
    wait_for(lambda: any(span.name.endswith("/start") for span in spans.of(TRACE)), 60)
    found = spans.of(TRACE)
    by_service = {span.service for span in found}
    assert {"inference", "gpu_worker", "inference-tasks"} <= by_service
    start = next(span for span in found if span.name.endswith("/start"))
    assert start.attributes["sdfleet.request_id"] == REQUEST_ID
    attempt = next(span for span in found if span.name == "attempt txt2img")
    assert attempt.attributes["sdfleet.request_id"] == REQUEST_ID
    assert attempt.attributes["sdfleet.outcome"] == "completed"
    assert {"until first_step", "until last_step", "until uploaded", "in line"} <= {s.name for s in found}
    assert next(span for span in found if span.name == "webhook").attributes["sdfleet.outcome"] == "200"


def test_no_span_holds_what_is_not_for_others_eyes(traced: Running, spans: Collector) -> None:
    everything = b"".join(spans.raw)
    for secret in (
        PROMPT.encode(),
        b"in-the-query",
        b"X-Amz-Signature",
        b"/hook",
        traced.target.api_key.encode(),
        traced.target.password.encode(),
        b"eyJ",  # how every JWT begins
    ):
        assert secret not in everything, secret


def test_what_is_asked_every_second_makes_no_trace(traced: Running, spans: Collector) -> None:
    names = {span.name for span in spans.spans}
    assert names
    assert not [name for name in names if "heartbeat" in name or "claim" in name or "readyz" in name]
    assert "run/inference.announce_ends" not in names
