"""What GPU workers and the other services ask of endpoints; clients never get here."""

from typing import Any

from services.common.errors import Forbidden
from services.common.identity import current_caller, for_services, for_workers
from services.common.web import ServiceBlueprint
from services.endpoints import schemas
from services.endpoints.repository import Sight
from services.endpoints.wiring import wired
from services.endpoints.workers import STOPPING, Worker

blp = ServiceBlueprint("internal", __name__, url_prefix="/internal")


@blp.route("/workers/<worker_id>/heartbeat", methods=["POST"])
@blp.arguments(schemas.Heartbeat)
@blp.response(200, schemas.EndpointsToServe)
@for_workers
def heartbeat(body: dict[str, Any], worker_id: str) -> dict[str, Any]:
    """Keep what a worker says of itself; answer what it is to serve from now on.

    One update in MongoDB, unless something changed that endpoints depend on.
    """
    if current_caller().claims["iss"] != worker_id:
        raise Forbidden("the token belongs to another worker")
    workers = wired().workers
    report = body | {"serving": sorted(set(body["endpoints"]))}
    del report["endpoints"]
    before = workers.report(worker_id, report)
    if before is not None and not workers.is_lost(before) and not _matters(before, report):
        slots = before["slots_taken"]
    else:
        wired().controller.reconcile()
        slots = workers.slots_of(worker_id)
    by_endpoint = {slot["endpoint_id"]: slot for slot in slots}
    return {"endpoints": list(by_endpoint.values())}


def _matters(before: Worker, report: dict[str, Any]) -> bool:
    """Whether what the worker says changes what endpoints have."""
    stopping = (before["state"] == STOPPING) != (report["state"] == STOPPING)
    return stopping or any(before[name] != report[name] for name in ("serving", "slots", "instance_type"))


@blp.route("/candidates", methods=["POST"])
@blp.arguments(schemas.CandidatesQuery)
@blp.response(200, schemas.Candidates)
@for_services
def candidates(body: dict[str, Any]) -> dict[str, Any]:
    """The endpoints that may take a job of a user now or soon; the only one is woken if it sleeps."""
    sight = Sight(None, body["roles"], everything=body["see_all"])
    found = wired().endpoints.candidates(sight, body["endpoint_type"], body["name"])
    if len(found) == 1:
        wired().controller.wake(found[0])
    backends = wired().backends
    return {"endpoints": [candidate | backends.address(candidate) for candidate in backends.counted(found)]}


@blp.route("/endpoint", methods=["POST"])
@blp.arguments(schemas.EndpointQuery)
@blp.response(200, schemas.FoundEndpoint)
@for_services
def endpoint(body: dict[str, Any]) -> dict[str, Any]:
    """An endpoint by its id, as far as a user sees it."""
    sight = Sight(body["username"], body["roles"], everything=body["see_all"])
    found = wired().endpoints.find_by_id(body["id"], sight)
    return {"endpoint": wired().backends.counted([found])[0] if found else None}


@blp.route("/workers", methods=["GET", "POST"])
@blp.response(200, schemas.Workers)
@for_services
def workers() -> dict[str, Any]:
    """The workers that were heard lately."""
    return {"workers": wired().workers.present()}
