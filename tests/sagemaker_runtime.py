"""SageMaker's runtime for tests: InvokeEndpoint and InvokeEndpointAsync in front of real containers.

It speaks what the ordinary boto3 client speaks (the service's API model in botocore), computes nothing, and
writes answers and failures of asynchronous invocations to S3, as SageMaker does. Tests say what goes wrong.
"""

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import requests
from flask import Flask, Response, request
from werkzeug.serving import make_server

ACCOUNT = "123456789012"
LARGEST_BODY = 6_291_456
REALTIME_SECONDS = 60


@dataclass
class Faults:
    """How often each thing still goes wrong, and a gate that invocations pass on their way."""

    lose: int = 0  # taken, never heard of again
    duplicate: int = 0  # given to the container twice
    fail: int = 0  # the container's instance is gone
    throttle: int = 0
    unavailable: int = 0
    drop_connection: int = 0  # accepted, but the caller hears nothing
    gate: threading.Event = field(default_factory=threading.Event)

    def takes(self, name: str) -> bool:
        """Whether it happens now."""
        left = getattr(self, name)
        setattr(self, name, max(left - 1, 0))
        return bool(left)


@dataclass
class Endpoint:
    """An endpoint with an instance for each container; asynchronous ones have paths for their answers."""

    containers: list[str]
    output_path: str | None = None
    failure_path: str | None = None
    line: "queue.Queue[dict[str, Any]]" = field(default_factory=queue.Queue)


class Runtime:
    """The running server; `endpoints`, `faults` and the lists of what was seen are the tests'."""

    def __init__(self) -> None:
        self.url = ""
        self.endpoints: dict[str, Endpoint] = {}
        self.faults = Faults()
        self.invoked: list[str] = []
        self.most_at_once = 0
        self._s3: Any = None
        self._inside: set[str] = set()
        self._lock = threading.Lock()

    def connect(self, **s3: Any) -> None:
        """Use this object store; the arguments are those of its boto3 client."""
        self._s3 = boto3.session.Session().client("s3", **s3)

    def reset(self) -> None:
        """No endpoints, no faults."""
        self.faults.gate.set()
        self.endpoints, self.faults, self.invoked, self.most_at_once = {}, Faults(), [], 0
        self.faults.gate.set()

    def add(self, name: str, containers: list[str], bucket: str | None = None) -> Endpoint:
        """An endpoint; with `bucket` an asynchronous one."""
        paths = [f"s3://{bucket}/sagemaker_output", f"s3://{bucket}/sagemaker_failure"] if bucket else []
        endpoint = self.endpoints[name] = Endpoint(containers, *paths)
        for container in containers if bucket else []:
            threading.Thread(target=self._instance, args=(endpoint, container), daemon=True).start()
        return endpoint

    @property
    def at_sagemaker(self) -> int:
        """Invocations that were taken and have no answer yet."""
        return len(self._inside)

    # the two calls

    def invoke(self, name: str) -> Response:
        """InvokeEndpoint."""
        endpoint, refusal = self._admit(name, is_async=False)
        if endpoint is None:
            return refusal
        body = request.get_data()
        if len(body) > LARGEST_BODY:
            return _error("ValidationError", "Body must have length less than or equal to 6291456", 400)
        inference_id = request.headers["X-Amzn-SageMaker-Inference-Id"]
        self._enter(inference_id)
        try:
            status, answer = self._ask_container(endpoint.containers[0], body, REALTIME_SECONDS)
        finally:
            self._leave(inference_id)
        if self.faults.takes("drop_connection"):
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        if status == 200:
            return Response(
                answer,
                content_type="application/json",
                headers={"x-Amzn-Invoked-Production-Variant": "AllTraffic"},
            )
        return _error(
            "ModelError",
            _sentence(status, answer),
            424,
            OriginalStatusCode=status,
            OriginalMessage=answer.decode(errors="replace"),
            LogStreamArn=f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/{name}",
        )

    def invoke_async(self, name: str) -> Response:
        """InvokeEndpointAsync."""
        endpoint, refusal = self._admit(name, is_async=True)
        if endpoint is None:
            return refusal
        headers = request.headers
        inference_id = headers["X-Amzn-SageMaker-Inference-Id"]
        in_line, computing = (
            int(headers[f"X-Amzn-SageMaker-{name}Seconds"]) for name in ("RequestTTL", "InvocationTimeout")
        )
        if not (1 <= len(inference_id) <= 64 and 60 <= in_line <= 21600 and 1 <= computing <= 3600):
            return _error("ValidationError", "a header is out of its bounds", 400)
        invocation = {
            "id": inference_id,
            "input": headers["X-Amzn-SageMaker-InputLocation"],
            "output": f"{endpoint.output_path}/{inference_id}.out",
            "failure": f"{endpoint.failure_path}/{inference_id}-error.out",
            "seconds": computing,
        }
        self._enter(inference_id)
        if not self.faults.takes("lose"):
            endpoint.line.put(invocation)
        if self.faults.takes("drop_connection"):
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return Response(
            json.dumps({"InferenceId": inference_id}),
            202,
            content_type="application/json",
            headers={
                "X-Amzn-SageMaker-OutputLocation": invocation["output"],
                "X-Amzn-SageMaker-FailureLocation": invocation["failure"],
            },
        )

    def _admit(self, name: str, *, is_async: bool) -> tuple[Endpoint | None, Any]:
        signature = request.headers.get("Authorization", "")
        if not (signature.startswith("AWS4-HMAC-SHA256") and "/sagemaker/aws4_request" in signature):
            return None, _error("MissingAuthenticationTokenException", "no signature", 403)
        if self.faults.takes("throttle"):
            return None, _error("ThrottlingException", "Rate exceeded", 429)
        if self.faults.takes("unavailable"):
            return None, _error("ServiceUnavailable", "the service is not available", 503)
        endpoint = self.endpoints.get(name)
        if endpoint is None:
            message = f"Endpoint {name} of account {ACCOUNT} not found."
            return None, _error("ValidationError", message, 400)
        if is_async != (endpoint.output_path is not None):
            message = f"Endpoint {name} does not take this kind of invocation."
            return None, _error("ValidationError", message, 400)
        return endpoint, None

    # what happens behind them

    def _instance(self, endpoint: Endpoint, container: str) -> None:
        """One instance of an asynchronous endpoint: one invocation after the other."""
        while True:
            invocation = endpoint.line.get()
            try:
                self._compute(invocation, container)
            finally:
                self._leave(invocation["id"])

    def _compute(self, invocation: dict[str, Any], container: str) -> None:
        body = self._object(invocation["input"])
        for _ in range(2 if self.faults.takes("duplicate") else 1):
            status, answer = self._ask_container(container, body, invocation["seconds"])
            if status == 200:
                self._put(invocation["output"], answer)
            else:
                self._put(invocation["failure"], _sentence(status, answer).encode())

    def _ask_container(self, container: str, body: bytes, seconds: float) -> tuple[int, bytes]:
        self.faults.gate.wait(60)
        if self.faults.takes("fail"):
            return 500, b"Connection to the container was lost"
        try:
            answer = requests.post(
                f"{container}/invocations",
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=seconds,
            )
        except requests.RequestException:
            return 500, b"Your invocation timed out while waiting for a response from container primary"
        return answer.status_code, answer.content

    def _object(self, location: str) -> bytes:
        bucket, _, key = location.removeprefix("s3://").partition("/")
        content: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def _put(self, location: str, content: bytes) -> None:
        bucket, _, key = location.removeprefix("s3://").partition("/")
        self._s3.put_object(Bucket=bucket, Key=key, Body=content)

    def _enter(self, inference_id: str) -> None:
        with self._lock:
            self.invoked.append(inference_id)
            self._inside.add(inference_id)
            self.most_at_once = max(self.most_at_once, len(self._inside))

    def _leave(self, inference_id: str) -> None:
        with self._lock:
            self._inside.discard(inference_id)


def _sentence(status: int, answer: bytes) -> str:
    """How SageMaker quotes a container."""
    side = "client" if 400 <= status < 500 else "server"
    told = answer.decode(errors="replace").replace('"', '\\"')
    return (
        f'Received {side} error ({status}) from primary with message "{told}". '
        f"See https://us-east-1.console.aws.amazon.com/cloudwatch/ in account {ACCOUNT} for more information."
    )


def _error(code: str, message: str, status: int, **more: Any) -> Response:
    return Response(
        json.dumps({"Message": message} | more),
        status,
        content_type="application/json",
        headers={"x-amzn-ErrorType": code},
    )


@contextmanager
def running_runtime() -> Iterator[Runtime]:
    """Run it on a free port of the loopback address."""
    runtime = Runtime()
    app = Flask("sagemaker-runtime")
    app.add_url_rule("/endpoints/<name>/invocations", view_func=runtime.invoke, methods=["POST"])
    app.add_url_rule("/endpoints/<name>/async-invocations", view_func=runtime.invoke_async, methods=["POST"])
    server = make_server("127.0.0.1", 0, app, threaded=True)
    runtime.url = f"http://127.0.0.1:{server.server_port}"
    runtime.faults.gate.set()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield runtime
    finally:
        runtime.faults.gate.set()
        server.shutdown()
        thread.join()


def wait_for(condition: Any, seconds: float = 60) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
