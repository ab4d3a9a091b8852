"""The life of endpoints: Creating, InService, Updating, Deleting, Deleted, Failed."""

import logging
from datetime import timedelta

from services.common.errors import Unavailable
from services.common.service_client import ServiceClient
from services.common.times import now
from services.endpoints.autoscaling import Policy, Scale, decide
from services.endpoints.backends.choice import Backends
from services.endpoints.backends.protocol import Backend, Observed
from services.endpoints.repository import Endpoint, Endpoints
from services.endpoints.states import SERVING, Status

log = logging.getLogger(__name__)

# A controller that was killed holds its lease no longer than this.
LEASE_SECONDS = 10.0
SYNCHRONISE, SYNCHRONISE_LEASE_SECONDS = "synchronise", 60.0
SCALABLE = (Status.IN_SERVICE, Status.UPDATING)
FOLLOWING = (*SCALABLE, Status.ROLLING_BACK)


class Controller:
    """Makes what is wanted of endpoints come true. Every method may run in several copies at once."""

    def __init__(
        self,
        endpoints: Endpoints,
        backends: Backends,
        inference: ServiceClient,
        policy: Policy,
    ) -> None:
        self._endpoints = endpoints
        self._backends = backends
        self._inference = inference
        self._policy = policy

    def tick(self) -> None:
        """Everything that is to be looked at regularly; one copy at a time does it."""
        holder = self._endpoints.take_lease(LEASE_SECONDS)
        if holder is None:
            return
        try:
            self.reconcile()
            moved, scaled = self.move_jobs(), self.autoscale()
            if moved or scaled:
                self.reconcile()
        finally:
            self._endpoints.drop_lease(holder)

    def reconcile(self) -> None:
        """Bring machines and endpoints' states to what is wanted; asks MongoDB only."""
        live = self._endpoints.live()
        self._backends.converge(live)
        observed = self._backends.observe(live)
        for endpoint in live:
            backend = self._backends.of(endpoint)
            if backend is not None:
                self._advance(endpoint, observed[endpoint["_id"]], backend)

    def synchronise(self) -> None:
        """Ask what takes longer than a request may, and follow the answers; one copy at a time does it.

        It has a lease of its own: AWS may be slow, and the workers' endpoints are looked after meanwhile.
        """
        holder = self._endpoints.take_lease(SYNCHRONISE_LEASE_SECONDS, SYNCHRONISE)
        if holder is None:
            return
        try:
            self._backends.synchronise()
            self.reconcile()
        finally:
            self._endpoints.drop_lease(holder, SYNCHRONISE)

    def _advance(self, endpoint: Endpoint, seen: Observed, backend: Backend) -> None:
        changed = False
        late = now() - endpoint["created_at"] > timedelta(seconds=backend.creation_seconds)
        match endpoint["status"]:
            case status if status in SERVING and seen.failure:
                changed = self._endpoints.fail(endpoint, seen.failure)
            case Status.CREATING if seen.ready:
                changed = self._endpoints.in_service(endpoint["_id"])
            case Status.CREATING if late:
                changed = self._endpoints.fail(endpoint, _reason(endpoint, backend))
            case status if status in FOLLOWING and seen.status not in {None, status}:
                changed = self._endpoints.follow(endpoint, Status(str(seen.status)))
            case Status.UPDATING if seen.status is None and seen.ready == seen.placed:
                changed = self._endpoints.updated(endpoint)
            case Status.DELETING if seen.gone:
                changed = self._endpoints.finish_deletion(endpoint["_id"])
        if changed:
            log.info("endpoint advanced", extra={"endpoint": endpoint["name"], "was": endpoint["status"]})

    # jobs of endpoints that end

    def move_jobs(self) -> bool:
        """Tell inference of endpoints that ended, so that their waiting jobs go elsewhere.

        It is told again later, as long as a job runs there that may come back to the line.
        """
        told = False
        for endpoint in self._endpoints.to_notify():
            if self._endpoints.name_lives_on(endpoint):
                self._endpoints.forget_notice(endpoint)
                continue
            try:
                self._inference.call(
                    "/internal/endpoint-deleted",
                    {
                        "name": endpoint["name"],
                        "roles": endpoint["roles"],
                        "endpoint_type": endpoint["endpoint_type"],
                    },
                )
                left = self._loads([endpoint["name"]])
            except Unavailable:
                break  # the next tick tells it
            self._endpoints.notified(endpoint, jobs_left=any(left.values()))
            told = True
        return told

    # autoscaling

    def autoscale(self) -> bool:
        """Follow the backlog of every endpoint that asked for it; whether one has changed."""
        scalable = [
            endpoint
            for endpoint in self._endpoints.live()
            if endpoint["status"] in SCALABLE and self._follows(endpoint)
        ]
        if not scalable:
            return False
        try:
            loads = self._loads([endpoint["name"] for endpoint in scalable])
        except Unavailable:
            return False  # nobody knows: nothing changes
        known = [endpoint for endpoint in scalable if endpoint["name"] in loads]
        return sum(self._follow(endpoint, loads[endpoint["name"]]) for endpoint in known) > 0

    def _follows(self, endpoint: Endpoint) -> bool:
        backend = self._backends.of(endpoint)
        return bool(endpoint["autoscaling"] and backend is not None and not backend.scales_itself)

    def _loads(self, names: list[str]) -> dict[str, int]:
        """Jobs that wait and run at each endpoint. Raises Unavailable."""
        backlog = self._inference.call("/internal/backlog", {"endpoints": names})
        return {name: jobs["waiting"] + jobs["running"] for name, jobs in backlog.items()}

    def _follow(self, endpoint: Endpoint, load: int) -> bool:
        before = Scale(
            endpoint["min_instances"],
            endpoint["max_instances"],
            endpoint["wanted"],
            endpoint["quiet_since"],
        )
        after = decide(before, load, self._policy, now())
        if after.wanted != before.wanted:
            return self._scale(endpoint, after.wanted, load)
        if after.quiet_since != before.quiet_since:
            self._endpoints.note_quiet(endpoint, after.quiet_since)
        return False

    def _scale(self, endpoint: Endpoint, wanted: int, load: int) -> bool:
        scaled = self._endpoints.scale(endpoint, wanted)
        if scaled:
            log.info(
                "endpoint scaled",
                extra={
                    "endpoint": endpoint["name"],
                    "was": endpoint["wanted"],
                    "wanted": wanted,
                    "load": load,
                },
            )
        return scaled

    def wake(self, endpoint: Endpoint) -> None:
        """Give a sleeping endpoint its first instance, for the job that is about to come."""
        asleep = endpoint["wanted"] == 0 and endpoint["status"] in SCALABLE
        if asleep and self._follows(endpoint) and self._scale(endpoint, 1, load=1):
            self.reconcile()


def _reason(endpoint: Endpoint, backend: Backend) -> str:
    seconds = round(backend.creation_seconds)
    return f"no instance became ready within {seconds} s: {backend.shortage(endpoint)}"
