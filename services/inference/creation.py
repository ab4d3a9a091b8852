"""Creating a job: whose it is, which models it uses, which endpoint serves it."""

from typing import Any

from services.common.errors import BadRequest, Forbidden
from services.common.idempotency import create_once
from services.common.identity import Caller
from services.common.service_client import ServiceClient
from services.inference.errors import CheckpointsNotFound, EndpointNotAvailable, NoEndpoint
from services.inference.job_view import NO_VAE_MODEL
from services.inference.limits import LimitTable
from services.inference.parts import Parts
from services.inference.records import Job
from services.inference.webhooks import Webhooks

BUILT_IN_VAES = {"Automatic", "None"}


class JobCreation:
    """Resolves what a request names, and keeps the job."""

    def __init__(
        self,
        parts: Parts,
        limits: LimitTable,
        users: ServiceClient,
        checkpoints: ServiceClient,
        endpoints: ServiceClient,
        webhooks: Webhooks,
    ) -> None:
        self._parts = parts
        self._limits = limits
        self._users = users
        self._checkpoints = checkpoints
        self._endpoints = endpoints
        self._webhooks = webhooks

    def create(self, wanted: dict[str, Any], caller: Caller) -> Job:
        """Keep a new job, or find the one that a repeated call has made.

        Raises Forbidden, CheckpointsNotFound, NoEndpoint, EndpointNotAvailable, PriorityRefused.
        """
        self.check_priority(wanted["priority"], caller)
        owner, roles = self._owner(wanted.get("user_id"), caller)
        models = self._models(wanted["models"], owner, roles, caller)
        name = wanted.get("sagemaker_endpoint_name") or wanted.get("sagemaker_endpoint")
        endpoint = self._endpoint(wanted.get("inference_type"), name, owner, roles, caller)
        job: Job = {
            "user": owner,
            "roles": roles,
            "task_type": wanted["task_type"],
            "inference_type": endpoint["type"],
            "endpoint": endpoint["name"],
            "endpoint_id": endpoint["id"],
            "instance_type": endpoint["instance_type"],
            "backend": endpoint["backend"],
            "models": models,
            "priority": wanted["priority"] or 0,
            "wants_preview": wanted["preview"],
            "filters": wanted["filters"],
            "request_id": wanted.get("request_id"),
        } | self._webhooks.of_new_job(owner, caller.key_id, wanted.get("webhook_url"))
        return create_once(
            create=lambda job_id: self._parts.jobs.add({"_id": job_id} | job),
            find=lambda job_id: self._parts.jobs.find(job_id, owner),
        )

    def check_priority(self, priority: int | None, caller: Caller) -> None:
        """Raises PriorityRefused when the caller may not give a job this priority."""
        if priority is not None and not caller.may("inference:all"):
            self._limits.of(caller.name, caller.roles).check_priority(priority)

    def _owner(self, user_id: str | None, caller: Caller) -> tuple[str, list[str]]:
        """The user whom the job belongs to: the caller, or another for whom the caller may act."""
        if user_id in (None, "", caller.name):
            return caller.name, list(caller.roles)
        if not caller.may("user:all"):
            raise Forbidden(
                f'only holders of user:all may create inferences for another user, here "{user_id}"'
            )
        found = self._users.call("/internal/names", {"usernames": [user_id], "roles": []})
        if found["missing_usernames"]:
            raise BadRequest(f'user: "{user_id}" not exist')
        return str(user_id), found["roles_of"][user_id]

    def _models(
        self, named: dict[str, list[str]], owner: str, roles: list[str], caller: Caller
    ) -> list[dict[str, Any]]:
        asked = {kind: list(dict.fromkeys(names)) for kind, names in named.items() if names}
        built_in = [name for name in asked.get("VAE", []) if name in BUILT_IN_VAES]
        if built_in:
            asked["VAE"] = [name for name in asked["VAE"] if name not in BUILT_IN_VAES]
        chosen = [
            {"id": NO_VAE_MODEL["id"], "name": name, "s3_location": NO_VAE_MODEL["s3"], "type": "VAE"}
            for name in built_in
        ]
        if not any(asked.values()):
            return chosen
        question = {
            "username": owner,
            "roles": roles,
            "see_all": caller.may("checkpoint:all"),
            "models": asked,
        }
        found = self._checkpoints.call("/internal/resolve", question)
        if found["missing"]:
            raise CheckpointsNotFound(found["missing"])
        return found["models"] + chosen

    def _endpoint(
        self, kind: str | None, name: str | None, owner: str, roles: list[str], caller: Caller
    ) -> dict[str, Any]:
        """The named endpoint, or the least loaded one that the user's roles own."""
        if name is None:
            kind = kind or "Async"
        question = {
            "roles": roles,
            "see_all": name is not None and caller.may("sagemaker_endpoint:all"),
            "endpoint_type": kind,
            "name": name,
        }
        candidates = self._endpoints.call("/internal/candidates", question)["endpoints"]
        if not candidates:
            if name is not None:
                raise EndpointNotAvailable(name, owner)
            raise NoEndpoint(str(kind), owner)
        backlog = self._parts.line.backlog([candidate["name"] for candidate in candidates])

        def load(candidate: dict[str, Any]) -> tuple[bool, float]:
            counts = backlog[candidate["name"]]
            instances = candidate.get("instance_count") or 0
            jobs = counts["waiting"] + counts["running"]
            return instances == 0, jobs / max(instances, 1)

        return min(candidates, key=load)
