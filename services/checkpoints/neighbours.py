"""What checkpoints asks of the other services."""

from collections.abc import Iterable

from services.checkpoints.errors import UnknownUser
from services.common.service_client import ServiceClient


class Neighbours:
    """The users, inference and training services. Questions raise Unavailable when nobody answers."""

    def __init__(self, users: ServiceClient, inference: ServiceClient, training: ServiceClient) -> None:
        self._users = users
        self._inference = inference
        self._training = training

    def roles_of(self, username: str) -> list[str]:
        """The roles of a user. Raises UnknownUser."""
        found = self._users.call("/internal/names", {"usernames": [username], "roles": []})
        if username in found["missing_usernames"]:
            raise UnknownUser(username)
        return list(found["roles_of"][username])

    def in_use(self, checkpoint_ids: Iterable[str]) -> set[str]:
        """Those of the checkpoints that waiting and running jobs, trainings and merges need."""
        asked = {"checkpoint_ids": list(checkpoint_ids)}
        if not asked["checkpoint_ids"]:
            return set()
        jobs = self._inference.call("/internal/jobs-using", asked)["in_use"]
        return set(jobs) | set(self._training.call("/internal/work-using", asked)["in_use"])
