"""Traces where nobody takes them cost nothing, and where their packages are missing it is said."""

import subprocess
import sys

import pytest

from stack.settings import ROOT

IMPORT = """
import sys
import services.inference.app, services.inference.tasks
from services.common import tracing
from services.common.web import make_web_app
assert tracing.traceparent() is None and tracing.headers() == {}
# redis imports OpenTelemetry's metrics wherever it finds them
ours = ("services.common.spans", "opentelemetry.sdk.trace", "opentelemetry.exporter")
print([name for name in sys.modules if name.startswith(ours)])
"""
WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from flask import Flask
from {module} import {name}
{call}
"""


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_nothing_of_it_is_imported_where_nobody_takes_traces() -> None:
    ran = run(IMPORT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        ("services.common.tracing", "trace_requests", 'trace_requests(Flask("x"), "x")'),
        ("gpu_worker.tracing", "begin", "begin()"),
    ],
)
def test_missing_packages_are_named(module: str, name: str, call: str) -> None:
    code = WITHOUT.format(module=module, name=name, call=call)
    ran = run(code, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert ran.returncode == 1
    assert (
        "OTEL_EXPORTER_OTLP_ENDPOINT is set: traces need more packages, pip install '.[traces]'" in ran.stderr
    )
