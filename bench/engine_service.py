"""The services as a worker's loop sees them, answered from memory: a line of jobs, and an HTTP storage."""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from gpu_worker.client import ProgressAnswer, ProgressReport
from gpu_worker.jobs import Job, ModelFile
from stack.failures import StackError

LEASE_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 3600.0


class Service:
    """Takes the place of `gpu_worker.client.ServiceClient`; at most `room` jobs are given at once."""

    def __init__(self) -> None:
        self.room = 1
        self.largest_claim = 0
        self._waiting: list[Job] = []
        self._open: set[str] = set()
        self._failed: list[str] = []
        self._objects: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._count = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _storage(self._objects))
        self._url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Service":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def model(self, path: Path, kind: str = "Stable-diffusion") -> dict[str, Any]:
        """A file as jobs name it; the worker fetches it once."""
        self._objects[f"/{path.name}"] = path.read_bytes()
        size = path.stat().st_size
        return {"type": kind, "name": path.name, "id": path.name, "etag": str(size), "size": size} | {
            "url": f"{self._url}/{path.name}"
        }

    def submit(self, bodies: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]]) -> None:
        """Queues jobs, all at the same moment."""
        jobs = [self._job(body, models) for body in bodies]
        with self._changed:
            self._open |= {job.id for job in jobs}
            self._waiting += jobs

    def wait(self) -> None:
        """Waits until every job has ended; raises `StackError` when one failed."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, LONGEST_WAIT_SECONDS):
                raise StackError("the worker did not end its jobs")
            if self._failed:
                raise StackError(f"a job failed: {self._failed[0]}")

    def _job(self, body: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> Job:
        self._count += 1
        name = f"job{self._count}"
        self._objects[f"/params/{name}"] = json.dumps(body).encode()
        document = {
            "id": name,
            "attempt": 1,
            "lease_seconds": LEASE_SECONDS,
            "endpoint": "bench",
            "task_type": "txt2img",
            "parameters_url": f"{self._url}/params/{name}",
            "seed": 1,
            "models": models,
        }
        return Job.from_json(document)

    # What a ServiceClient does.

    def claim(self, endpoints: Sequence[str], warm: Sequence[str], room: int, pixels: int) -> list[Job]:
        with self._changed:
            taken = self._waiting[: min(room, self.room)]
            del self._waiting[: len(taken)]
            self.largest_claim = max(self.largest_claim, len(taken))
        return taken

    def upcoming(self, endpoints: Sequence[str]) -> list[ModelFile]:
        with self._changed:
            return [model for job in self._waiting[:2] for model in job.models]

    def progress(self, job: Job, report: ProgressReport) -> ProgressAnswer:
        return ProgressAnswer(False, LEASE_SECONDS)

    def uploads(self, job: Job, files: Sequence[str]) -> dict[str, str]:
        return {name: f"{self._url}/out/{job.id}/{name}" for name in files}

    def complete(
        self, job: Job, images: Sequence[str], info: dict[str, Any], timings: dict[str, float]
    ) -> None:
        self._end(job)

    def fail(self, job: Job, kind: str, message: str) -> None:
        self._failed.append(message)
        self._end(job)

    def release(self, job: Job) -> None:
        self._end(job)

    def _end(self, job: Job) -> None:
        self._objects.pop(f"/params/{job.id}", None)
        with self._changed:
            self._open.discard(job.id)
            self._changed.notify_all()


def _storage(objects: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
    class Storage(BaseHTTPRequestHandler):
        """Gives what there is, and throws away what it is sent."""

        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments: Any) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            content = objects.get(self.path)
            status = 200 if content is not None else 404
            whole = part = content or b""
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(wanted[1]), int(wanted[2] or len(whole) - 1)
                part, status = whole[first : last + 1], 206
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(whole)}")
            self.send_header("ETag", f'"{len(whole)}"')
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Storage
