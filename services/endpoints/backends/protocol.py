"""What the life of an endpoint asks of the machines behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from services.endpoints.repository import Endpoint, Limit


@dataclass(frozen=True)
class Observed:
    """What is true of an endpoint's machines now."""

    placed: int = 0  # instances that have a machine
    ready: int = 0  # instances that take jobs
    gone: bool = True  # nothing serves the endpoint any more


class Backend(Protocol):
    """Machines for endpoints. Every method may be called at any time, by several copies at once."""

    def limit(self, instance_type: str) -> Limit:
        """How many instances of this type there may be."""

    def converge(self, endpoints: Sequence[Endpoint]) -> None:
        """Bring the machines nearer to what these endpoints want; other endpoints want nothing."""

    def observe(self, endpoints: Sequence[Endpoint]) -> dict[str, Observed]:
        """What is true now, by endpoint id."""

    def instances(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        """The machines of an endpoint, as GET …/instances shows them."""

    def shortage(self, endpoint: Endpoint) -> str:
        """Why the endpoint has no instance, in a sentence."""
