"""The backends of this deployment, and which of them an endpoint is on."""

from collections.abc import Mapping, Sequence

from services.endpoints.backends.protocol import Backend, Observed
from services.endpoints.errors import BackendNotConfigured
from services.endpoints.repository import Endpoint

NOWHERE: dict[str, str | None] = {
    "sagemaker_endpoint_name": None,
    "sagemaker_output_path": None,
    "sagemaker_failure_path": None,
}


class Backends:
    """The configured backends by name; the first is for endpoints that name none."""

    def __init__(self, by_name: Mapping[str, Backend]) -> None:
        self._by_name = dict(by_name)

    def choose(self, name: str | None) -> tuple[str, Backend]:
        """The backend for a new endpoint. Raises BackendNotConfigured."""
        chosen = name or next(iter(self._by_name))
        if chosen not in self._by_name:
            raise BackendNotConfigured(chosen, self._by_name)
        return chosen, self._by_name[chosen]

    def of(self, endpoint: Endpoint) -> Backend | None:
        """The endpoint's backend; None when the deployment has it no more."""
        return self._by_name.get(endpoint["backend"])

    def address(self, endpoint: Endpoint) -> dict[str, str | None]:
        """Where inference takes the endpoint's jobs."""
        backend = self.of(endpoint)
        return NOWHERE | (backend.address(endpoint) if backend else {})

    def synchronise(self) -> None:
        """Let every backend do what takes longer than a request may."""
        for backend in self._by_name.values():
            backend.synchronise()

    def converge(self, endpoints: Sequence[Endpoint]) -> None:
        """Bring the machines of every backend nearer to what its endpoints want."""
        for name, its_own in self._grouped(endpoints).items():
            self._by_name[name].converge(its_own)

    def observe(self, endpoints: Sequence[Endpoint]) -> dict[str, Observed]:
        """What is true now, by endpoint id; of endpoints whose backend is not configured nothing is known."""
        seen = {endpoint["_id"]: Observed(gone=False) for endpoint in endpoints}
        for name, its_own in self._grouped(endpoints).items():
            if its_own:
                seen |= self._by_name[name].observe(its_own)
        return seen

    def counted(self, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
        """The endpoints with their `instance_count`."""
        seen = self.observe(endpoints)
        return [endpoint | {"instance_count": seen[endpoint["_id"]].ready} for endpoint in endpoints]

    def _grouped(self, endpoints: Sequence[Endpoint]) -> dict[str, list[Endpoint]]:
        """The endpoints of each configured backend: one without any may still have machines to free."""
        groups: dict[str, list[Endpoint]] = {name: [] for name in self._by_name}
        for endpoint in endpoints:
            if endpoint["backend"] in groups:
                groups[endpoint["backend"]].append(endpoint)
        return groups
