"""A fake of our own services, as far as a worker sees them: docs/internals.md in one small Flask app.

The end-to-end tests run the worker with the real services; here the fake lets a test decide every answer.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server

SECRET = "w" * 32
ENDPOINT = "esd-async-test"


class _KeepAlive(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_arguments: Any) -> None:
        """Says nothing."""


class Platform:
    """Jobs wait in a list; what the worker says is recorded; objects live in a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.waiting: list[dict[str, Any]] = []
        self.long_work: list[dict[str, Any]] = []
        self.claimed: dict[str, float] = {}
        self.progress: list[dict[str, Any]] = []
        self.previews: list[dict[str, Any]] = []
        self.ended: dict[str, tuple[str, dict[str, Any], float]] = {}
        self.heartbeats: list[dict[str, Any]] = []
        self.request_ids: set[str] = set()
        self.gets: list[tuple[str, str]] = []
        self.serving = True
        self.cancelled: set[str] = set()
        self.fenced: set[str] = set()
        self.broken: dict[str, int] = {}
        self.lease_seconds = 5.0
        self.ring: Callable[[str], None] = lambda _endpoint: None
        self.changed = threading.Condition()
        self._server = make_server("127.0.0.1", 0, self._app(), threaded=True, request_handler=_KeepAlive)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()

    def put_file(self, path: Path, name: str = "", model_type: str = "Stable-diffusion") -> dict[str, Any]:
        """Stores a checkpoint and returns its entry in a job's models."""
        content = path.read_bytes()
        key = f"models/{path.name}"
        self.objects[key] = content
        return {
            "type": model_type,
            "name": name or path.name,
            "id": f"id-{path.name}",
            "url": f"{self.url}/s3/{key}",
            "size": len(content),
            "etag": hashlib.md5(content).hexdigest(),
            "sha256": None,
        }

    def submit(
        self,
        job_id: str,
        models: list[dict[str, Any]],
        parameters: Any,
        task: str = "txt2img",
        preview: bool = False,
    ) -> None:
        """Queues a job; `parameters` is the body, or bytes as they are."""
        content = parameters if isinstance(parameters, bytes) else json.dumps(parameters).encode()
        self.objects[f"params/{job_id}"] = content
        with self.changed:
            self.waiting.append(
                {
                    "id": job_id,
                    "attempt": 1,
                    "lease_seconds": self.lease_seconds,
                    "endpoint": ENDPOINT,
                    "task_type": task,
                    "request_id": f"request-{job_id}",
                    "parameters_url": f"{self.url}/s3/params/{job_id}",
                    "seed": 1234,
                    "models": models,
                    "preview": preview,
                }
            )
        self.ring(ENDPOINT)

    def wait_for(self, condition: Any, seconds: float = 20.0) -> None:
        """Waits until `condition()` is true."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), "the worker did not do it in time"

    def end_of(self, job_id: str, seconds: float = 20.0) -> tuple[str, dict[str, Any]]:
        """How a job ended: the call and its body."""
        self.wait_for(lambda: job_id in self.ended, seconds)
        return self.ended[job_id][:2]

    def _app(self) -> Flask:
        app = Flask("fake-platform")
        app.add_url_rule("/internal/workers/<worker>/heartbeat", view_func=self._heartbeat, methods=["POST"])
        app.add_url_rule("/internal/claim", view_func=self._claim, methods=["POST"])
        app.add_url_rule("/internal/upcoming", view_func=self._upcoming, methods=["POST"])
        app.add_url_rule("/training/internal/claim", view_func=self._claim_long_work, methods=["POST"])
        app.add_url_rule("/internal/jobs/<job_id>/<action>", view_func=self._job, methods=["POST"])
        app.add_url_rule("/s3/<path:key>", view_func=self._object, methods=["GET", "PUT"])
        return app

    def _checked_body(self) -> dict[str, Any]:
        claims = jwt.decode(
            request.headers["X-Internal-Token"], SECRET, algorithms=["HS256"], audience="sdfleet-worker"
        )
        assert claims["exp"] - time.time() <= 60
        self.request_ids.add(request.headers.get("x-request-id", ""))
        body: dict[str, Any] = request.get_json()
        assert body.get("worker_id", claims["iss"]) == claims["iss"]
        return body

    def _fails(self, action: str) -> bool:
        if self.broken.get(action, 0) > 0:
            self.broken[action] -= 1
            return True
        return False

    def _heartbeat(self, worker: str) -> Any:
        body = self._checked_body()
        if self._fails("heartbeat"):
            return Response(status=503)
        with self.changed:
            self.heartbeats.append(body)
            self.changed.notify_all()
        endpoints = [{"id": "e1", "name": ENDPOINT, "type": "Async"}] if self.serving else []
        return {"endpoints": endpoints}

    def _claim(self) -> Any:
        body = self._checked_body()
        if self._fails("claim"):
            return Response(status=503)
        with self.changed:
            jobs = self.waiting[: body["room"]]
            del self.waiting[: body["room"]]
            for job in jobs:
                self.claimed[job["id"]] = time.time()
            self.changed.notify_all()
        return {"jobs": jobs}

    def _upcoming(self) -> Any:
        assert self._checked_body()["endpoints"] == [ENDPOINT]
        with self.changed:
            return {"files": [model for job in self.waiting[:2] for model in job["models"]]}

    def _claim_long_work(self) -> Any:
        self._checked_body()
        return {"work": self.long_work.pop() if self.long_work else None}

    def _job(self, job_id: str, action: str) -> Any:
        body = self._checked_body()
        if self._fails(action):
            return Response(status=503)
        if job_id in self.fenced:
            return Response(status=409)
        with self.changed:
            if action == "progress":
                self.progress.append(body | {"id": job_id, "heard_at": time.time()})
            elif action == "preview":
                self.previews.append(body | {"id": job_id})
            elif action != "uploads":
                self.ended[job_id] = (action, body, time.time())
            self.changed.notify_all()
        if action == "progress":
            return {"cancel": job_id in self.cancelled, "lease_seconds": self.lease_seconds}
        if action == "uploads":
            return {"urls": {name: f"{self.url}/s3/out/{job_id}/{name}" for name in body["files"]}}
        return Response(status=204)

    def _object(self, key: str) -> Any:
        if self._fails(request.method):
            return Response(status=503)
        if request.method == "PUT":
            self.objects[key] = request.get_data()
            return Response(status=200)
        if key not in self.objects:
            return Response(status=404)
        content, wanted = self.objects[key], request.headers.get("Range", "")
        self.gets.append((key, wanted))
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}
        if wanted:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            return Response(content[start:], status=206, headers=headers)
        return Response(content, headers=headers)
