"""Long work as the training service describes it, and the calls that its process makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_worker.client import ServiceClient
from gpu_worker.jobs import ModelFile


@dataclass(frozen=True, slots=True)
class Work:
    """One attempt at a training or merge; `document` is what the service sent."""

    id: str
    attempt: int
    lease_seconds: float
    kind: str
    request_id: str
    result_name: str
    params: Mapping[str, Any]
    files: tuple[ModelFile, ...]
    document: Mapping[str, Any]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Work":
        """Reads the `Work` of docs/internals.md; KeyError, TypeError or ValueError for another shape."""
        files = tuple(
            ModelFile(
                type=str(file["type"]),
                name=str(file["name"]),
                id=str(file["id"]),
                url=str(file["url"]),
                size=int(file["size"]),
                etag=str(file["etag"]).strip('"'),
                sha256=file.get("sha256") or None,
            )
            for file in document["files"]
        )
        return cls(
            id=str(document["id"]),
            attempt=int(document["attempt"]),
            lease_seconds=float(document["lease_seconds"]),
            kind=str(document["kind"]),
            request_id=str(document.get("request_id") or ""),
            result_name=str(document["result_name"]),
            params=document["params"],
            files=files,
            document=document,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far work is; `losses` are the (step, loss) that were not told yet."""

    step: int = 0
    steps: int | None = None
    loss: float | None = None
    rate: float | None = None
    remaining_seconds: float | None = None
    doing: str = ""
    losses: tuple[tuple[int, float], ...] = ()
    unknown_parameters: tuple[str, ...] | None = None
    notes: tuple[str, ...] | None = None


class WorkClient(ServiceClient):
    """The worker's calls to the training service; they fail as those about jobs do."""

    def claim_work(self, instance_type: str) -> Mapping[str, Any] | None:
        """The next work for a worker of this type; None when nothing waits."""
        body = {"worker_id": self._config.worker_id, "instance_type": instance_type}
        found: Mapping[str, Any] | None = self._post(f"{self._url}/internal/claim", body)["work"]
        return found

    def report(self, work: Work, progress: Progress) -> tuple[bool, float]:
        """Renews the lease; whether the work is to end, and how long the lease lasts now."""
        body = {name: getattr(progress, name) for name in Progress.__dataclass_fields__}
        answer = self._post_work(work, "progress", body)
        return bool(answer["stop"]), float(answer["lease_seconds"])

    def upload_urls(self, work: Work, name: str, parts: int) -> tuple[str, list[str]]:
        """A multipart upload's id, and where its parts are PUT."""
        made = self._post_work(work, "uploads", {"files": {name: parts}})["uploads"][name]
        return str(made["upload_id"]), [str(url) for url in made["urls"]]

    def saved(self, work: Work, file: Mapping[str, Any], step: int) -> None:
        """A state, sample or intermediate result is uploaded."""
        self._post_work(work, "saved", {"file": dict(file), "step": step})

    def complete_work(
        self, work: Work, file: Mapping[str, Any] | None, stopped: bool, facts: Mapping[str, Any]
    ) -> None:
        """Ends the work; without a file it was stopped before it had learned anything."""
        body = {"file": file and dict(file), "stopped": stopped, "facts": dict(facts)}
        self._post_work(work, "complete", body)

    def fail_work(self, work: Work, kind: str, message: str) -> None:
        """Ends this attempt with a sentence."""
        self._post_work(work, "fail", {"kind": kind, "message": message})

    def release_work(self, work: Work) -> None:
        """Gives the work back because the worker stops."""
        self._post_work(work, "release", {})

    @property
    def _url(self) -> str:
        return self._config.training_url or ""

    def _post_work(self, work: Work, action: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self._url}/internal/jobs/{work.id}/{action}"
        fenced = {"worker_id": self._config.worker_id, "attempt": work.attempt, **body}
        return self._post(url, fenced, request_id=work.request_id)


def uploaded(name: str, upload_id: str, etags: Sequence[str]) -> dict[str, Any]:
    """A file as `saved` and `complete_work` name it."""
    return {"name": name, "upload_id": upload_id, "etags": list(etags)}
