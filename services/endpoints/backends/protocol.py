"""What the life of an endpoint asks of the machines behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.endpoints.repository import Endpoint, Limit
from services.endpoints.states import Status


@dataclass(frozen=True)
class Observed:
    """What is true of an endpoint's machines now."""

    placed: int = 0  # instances that have a machine
    ready: int = 0  # instances that take jobs
    gone: bool = True  # nothing serves the endpoint any more
    status: Status | None = None  # the backend's own word, for one that changes endpoints by itself
    failure: str | None = None  # why the endpoint serves no more and will not again


class Backend(Protocol):
    """Machines for endpoints. Every method may be called at any time, by several copies at once."""

    creation_seconds: float  # an endpoint that has no instance after so long is Failed
    scales_itself: bool  # follows the backlog of its endpoints without us

    def prepare(self, endpoint: Endpoint) -> dict[str, Any]:
        """What more is kept of a new endpoint. Raises BadRequest when it cannot be made here."""

    def limit(self, instance_type: str) -> Limit:
        """How many instances of this type there may be."""

    def start(self, endpoint: Endpoint) -> None:
        """Begin to make a new endpoint. Raises ApiError when it is refused for good."""

    def synchronise(self) -> None:
        """What takes longer than a request may; asked for every few seconds."""

    def converge(self, endpoints: Sequence[Endpoint]) -> None:
        """Bring the machines nearer to what these endpoints want; other endpoints want nothing."""

    def observe(self, endpoints: Sequence[Endpoint]) -> dict[str, Observed]:
        """What is true now, by endpoint id."""

    def address(self, endpoint: Endpoint) -> dict[str, str | None]:
        """Where inference takes the endpoint's jobs, when no worker claims them."""

    def instances(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        """The machines of an endpoint, as GET …/instances shows them."""

    def shortage(self, endpoint: Endpoint) -> str:
        """Why the endpoint has no instance, in a sentence."""
