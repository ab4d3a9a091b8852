"""The calls that the worker makes to the endpoints and inference services."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jwt
import requests
from requests.adapters import HTTPAdapter

from gpu_worker.config import WorkerConfig
from gpu_worker.errors import AttemptLost, ServiceRefused, ServiceUnreachable
from gpu_worker.jobs import Endpoint, Job, ModelFile

TOKEN_SECONDS = 60
TOKEN_REUSED_SECONDS = 30
TIMEOUT = (3.05, 10.0)
POOL_SIZE = 16

Event = Literal["first_step", "last_step"]


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """Where a job is: `step` of `steps` for the pictures after `image` finished ones of `images`.

    `at` is when that was, by the worker's clock in epoch seconds.
    """

    step: int = 0
    steps: int = 0
    image: int = 0
    images: int = 0
    event: Event | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class ProgressAnswer:
    """What the inference service answers to progress: whether to stop, and how long the lease lasts now."""

    cancel: bool
    lease_seconds: float


def make_session() -> requests.Session:
    """A session with kept-alive connections that several threads may use."""
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=POOL_SIZE, pool_maxsize=POOL_SIZE)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    # Without this, requests looks for credentials in ~/.netrc and would break presigned URLs with them.
    session.auth = _no_auth
    return session


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


class ServiceClient:
    """Speaks the worker's part of docs/internals.md.

    Every call raises `ServiceUnreachable` when it may be repeated; calls about a job raise `AttemptLost` on
    409 and 404; `ServiceRefused` is any other refusal.
    """

    def __init__(self, config: WorkerConfig, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        self._session = make_session()
        self._session.trust_env = False
        self._token: tuple[str, float] = ("", 0.0)

    def heartbeat(self, report: dict[str, Any]) -> list[Endpoint]:
        """Says what the worker is and does; returns the endpoints that it is to serve."""
        url = f"{self._config.endpoints_url}/internal/workers/{self._config.worker_id}/heartbeat"
        answer = self._post(url, report)
        return [
            Endpoint(id=str(e["id"]), name=str(e["name"]), type=str(e.get("type", "")))
            for e in answer["endpoints"]
        ]

    def claim(self, endpoints: Sequence[str], warm: Sequence[str], room: int, pixels: int) -> list[Job]:
        """Takes up to `room` waiting jobs of `endpoints`, none after `pixels` of pictures are reached.

        `warm` are the ids of the checkpoints in memory.
        """
        body = {
            "worker_id": self._config.worker_id,
            "endpoints": list(endpoints),
            "warm": list(warm),
            "room": room,
            "pixels": pixels,
        }
        answer = self._post(f"{self._config.inference_url}/internal/claim", body)
        return [Job.from_json(document) for document in answer["jobs"]]

    def upcoming(self, endpoints: Sequence[str]) -> list[ModelFile]:
        """The files that the next jobs of `endpoints` need."""
        body = {"worker_id": self._config.worker_id, "endpoints": list(endpoints)}
        answer = self._post(f"{self._config.inference_url}/internal/upcoming", body)
        return [ModelFile.from_json(document) for document in answer["files"]]

    def progress(self, job: Job, report: ProgressReport) -> ProgressAnswer:
        """Records how far a job is and renews its lease."""
        body = {
            "step": report.step,
            "steps": report.steps,
            "image": report.image,
            "images": report.images,
            "event": report.event,
            "at": report.at,
        }
        answer = self._post_job(job, "progress", body)
        return ProgressAnswer(
            bool(answer.get("cancel")), float(answer.get("lease_seconds") or job.lease_seconds)
        )

    def preview(self, job: Job, step: int, image: int, picture: str) -> None:
        """Shows a small picture, base64 of a JPEG; the call renews the lease."""
        self._post_job(job, "preview", {"step": step, "image": image, "picture": picture})

    def uploads(self, job: Job, files: Sequence[str]) -> dict[str, str]:
        """Presigned PUT URLs by file name; the call renews the lease."""
        urls = self._post_job(job, "uploads", {"files": list(files)})["urls"]
        return {str(name): str(url) for name, url in urls.items()}

    def complete(
        self, job: Job, images: Sequence[str], info: dict[str, Any], timings: dict[str, float]
    ) -> None:
        """Ends the job with its pictures, which must be in S3 by then."""
        self._post_job(job, "complete", {"images": list(images), "info": info, "timings": timings})

    def fail(self, job: Job, kind: str, message: str) -> None:
        """Ends this attempt with a sentence; `kind` is that of a `JobFault`."""
        self._post_job(job, "fail", {"kind": kind, "message": message})

    def release(self, job: Job) -> None:
        """Gives the job back because the worker stops."""
        self._post_job(job, "release", {})

    def _post_job(self, job: Job, action: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._config.inference_url}/internal/jobs/{job.id}/{action}"
        fenced = {"worker_id": self._config.worker_id, "attempt": job.attempt, **body}
        return self._post(url, fenced, request_id=job.request_id, traceparent=job.traceparent)

    def _post(
        self, url: str, body: dict[str, Any], request_id: str = "", traceparent: str = ""
    ) -> dict[str, Any]:
        headers = {"X-Internal-Token": self._worker_token()}
        if traceparent:
            headers["traceparent"] = traceparent
        if request_id:
            headers["x-request-id"] = request_id
        try:
            response = self._session.post(url, json=body, headers=headers, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise ServiceUnreachable(f"{url}: {type(error).__name__}") from error
        return _read_answer(url, response)

    def _worker_token(self) -> str:
        token, made_at = self._token
        now = self._clock()
        if not 0 <= now - made_at < TOKEN_REUSED_SECONDS:
            claims = {
                "iss": self._config.worker_id,
                "aud": "sdfleet-worker",
                "iat": int(now),
                "exp": int(now) + TOKEN_SECONDS,
            }
            token = jwt.encode(claims, self._config.worker_secret, algorithm="HS256")
            self._token = (token, now)
        return token


def _read_answer(url: str, response: requests.Response) -> dict[str, Any]:
    status = response.status_code
    if status in (404, 409) and "/internal/jobs/" in url:
        raise AttemptLost(f"{url}: {status}")
    if status == 429 or status >= 500:
        raise ServiceUnreachable(f"{url}: {status}")
    if status >= 300:
        raise ServiceRefused(f"{url}: {status}")
    if status == 204 or not response.content:
        return {}
    try:
        answer = response.json()
    except requests.JSONDecodeError as error:
        raise ServiceUnreachable(f"{url}: the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise ServiceUnreachable(f"{url}: the answer is not a JSON object")
    return answer
