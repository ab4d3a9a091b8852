"""New endpoints: what is checked before one is kept, and in which order."""

from typing import Any

from services.common.errors import ApiError, BadRequest
from services.common.identity import Caller
from services.common.service_client import ServiceClient
from services.common.times import now
from services.endpoints.backends.choice import Backends
from services.endpoints.errors import (
    ActingForSomebodyElse,
    AutoscalingNotSupported,
    RolesNotFound,
    ServerlessNotSupported,
    UserNotFound,
)
from services.endpoints.repository import Endpoint, Endpoints
from services.endpoints.states import EndpointType, Status

SHORT_ID = 7


class Directory:
    """What the users service knows of names."""

    def __init__(self, users: ServiceClient) -> None:
        self._users = users

    def check(self, usernames: list[str], roles: list[str]) -> None:
        """Raise UserNotFound or RolesNotFound for names that do not exist."""
        found = self._users.call("/internal/names", {"usernames": usernames, "roles": roles})
        if found["missing_usernames"]:
            raise UserNotFound(found["missing_usernames"][0])
        if found["missing_roles"]:
            raise RolesNotFound(found["missing_roles"])

    def check_may_act_for(self, caller: Caller, username: str | None) -> None:
        """Raise ActingForSomebodyElse when a body names another user and the caller may not act for them."""
        if username not in {None, caller.name} and not caller.may("user:all"):
            raise ActingForSomebodyElse(str(username))


class Creation:
    """Creates endpoints."""

    def __init__(self, endpoints: Endpoints, backends: Backends, directory: Directory) -> None:
        self._endpoints = endpoints
        self._backends = backends
        self._directory = directory

    def create(self, endpoint_id: str, body: dict[str, Any], caller: Caller) -> Endpoint:
        """The new endpoint in state Creating. Raises DuplicateKeyError for a taken id."""
        endpoint = self._checked(body, caller)
        name = body["endpoint_name"] or endpoint_id[:SHORT_ID]
        endpoint |= {"_id": endpoint_id, "name": f"esd-{endpoint['endpoint_type'].lower()}-{name}"}
        endpoint["backend"], backend = self._backends.choose(body["backend"])
        endpoint |= backend.prepare(endpoint)
        self._endpoints.create(endpoint, backend.limit(endpoint["instance_type"]))
        try:
            backend.start(endpoint)
        except ApiError:
            self._endpoints.withdraw(endpoint_id)
            raise
        return endpoint

    def _checked(self, body: dict[str, Any], caller: Caller) -> Endpoint:
        endpoint_type = body.get("endpoint_type", EndpointType.ASYNC)
        autoscaling = body.get("autoscaling_enabled", False)
        creator = body.get("creator", caller.name)
        roles = list(dict.fromkeys(body.get("assign_to_roles", caller.roles)))
        self._directory.check_may_act_for(caller, creator)
        if endpoint_type == EndpointType.SERVERLESS:
            raise ServerlessNotSupported
        if autoscaling and endpoint_type != EndpointType.ASYNC:
            raise AutoscalingNotSupported
        if not roles:
            raise BadRequest("you have no role: an endpoint belongs to one role or more")
        self._directory.check([creator] if creator != caller.name else [], roles)
        return {
            "endpoint_type": endpoint_type,
            "instance_type": body["instance_type"],
            "roles": roles,
            "creator": creator,
            "custom_docker_image_uri": body["custom_docker_image_uri"],
            "status": Status.CREATING,
            "error": None,
            "created_at": now(),
            "ended_at": None,
        } | _scale(body, autoscaling)


def _scale(body: dict[str, Any], autoscaling: bool) -> dict[str, Any]:
    """The bounds and the first number of instances; without autoscaling all three are the same."""
    count = least = most = body["initial_instance_count"]
    if autoscaling:
        least = body["min_instance_number"] or 0
        most = body["max_instance_number"] or max(count, least)
        if not least <= count <= most:
            raise BadRequest(
                f"initial_instance_count {count} is not between "
                f"min_instance_number {least} and max_instance_number {most}"
            )
    return {
        "autoscaling": autoscaling,
        "wanted": count,
        "min_instances": least,
        "max_instances": most,
        "quiet_since": None,
    }
