"""Failures of the endpoints service, by name."""

from collections.abc import Iterable

from services.common.errors import BadRequest, Forbidden, NotFound


class EndpointNotFound(NotFound):
    """No such endpoint, or the caller may not see it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"endpoint {name} not found")


class ServerlessNotSupported(BadRequest):
    """Serverless endpoints do not exist here."""

    message = "Serverless endpoint is not supported yet"


class AutoscalingNotSupported(BadRequest):
    """Only what waits in a line can be scaled by the line's length."""

    message = "autoscaling is not supported for Real-time endpoints"


class RolesNotFound(BadRequest):
    """An endpoint was to belong to roles that do not exist."""

    def __init__(self, roles: Iterable[str]) -> None:
        sentences = [f'user roles "{role}" not exist' for role in roles]
        super().__init__("; ".join(sentences), errors={"assign_to_roles": sentences})


class UserNotFound(BadRequest):
    """A request names a user who does not exist."""

    def __init__(self, username: str) -> None:
        super().__init__(f'user: "{username}" not exist')


class ActingForSomebodyElse(Forbidden):
    """A body names another user, and the caller may not act for others."""

    def __init__(self, username: str) -> None:
        super().__init__(f'acting for user "{username}" needs the permission user:all')


class RoleHasEndpoint(BadRequest):
    """One live endpoint of a type per role."""

    def __init__(self, role: str) -> None:
        super().__init__(f"role [{role}] has a valid endpoint already, not allow to have another one")


class BackendNotConfigured(BadRequest):
    """An endpoint was to run on something that this deployment does not have."""

    def __init__(self, name: str, configured: Iterable[str]) -> None:
        known = ", ".join(configured)
        super().__init__(f'backend "{name}" is not configured in this deployment, which has: {known}')


class NameTaken(BadRequest):
    """Names are unique among the endpoints that are listed."""

    def __init__(self, name: str) -> None:
        super().__init__(f'Cannot create already existing model "{name}"')


class ResourceLimitExceeded(BadRequest):
    """There are not so many instances of this type."""

    def __init__(self, instance_type: str, limit: int, taken: int, wanted: int, known: Iterable[str]) -> None:
        known_types = ", ".join(sorted(known)) or "none"
        super().__init__(
            f"ResourceLimitExceeded: the limit '{instance_type} for endpoint usage' is {limit} Instances, "
            f"with current utilization of {taken} Instances and a request delta of {wanted} Instances "
            f"(instance types with capacity: {known_types})"
        )


class NotYours(Forbidden):
    """The caller sees this endpoint but may not change it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"endpoint {name} belongs to another user: only its creator may delete it")
