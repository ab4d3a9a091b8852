"""What clients ask of endpoints."""

from typing import Any

from flask import Response

from services.common.envelope import answer
from services.common.idempotency import create_once
from services.common.identity import Caller, current_caller, requires
from services.common.paging import next_key
from services.common.web import ServiceBlueprint
from services.endpoints import repository, schemas
from services.endpoints.errors import EndpointNotFound, NotYours
from services.endpoints.repository import Sight
from services.endpoints.states import Status
from services.endpoints.wiring import wired

EVERYTHING = Sight(None, (), everything=True)
# A repeated creation gets the first answer, whatever has become of the endpoint since.
AS_CREATED = {"status": Status.CREATING, "instance_count": 0, "error": None, "ended_at": None}

blp = ServiceBlueprint("endpoints", __name__, description="Endpoints: where image jobs run")


@blp.route("/endpoints", methods=["POST"])
@blp.arguments(schemas.NewEndpoint)
@blp.answers(200, schemas.Endpoint)
@requires("sagemaker_endpoint:create")
def create_endpoint(body: dict[str, Any]) -> Response:
    """Start the deployment of an endpoint."""
    caller, parts = current_caller(), wired()
    endpoint = create_once(
        lambda endpoint_id: parts.creation.create(endpoint_id, body, caller),
        lambda endpoint_id: parts.endpoints.find(endpoint_id, EVERYTHING),
    )
    parts.controller.reconcile()
    shown = schemas.Endpoint().dump(endpoint | AS_CREATED)
    return answer(200, f"Endpoint deployment started: {endpoint['name']}", shown)


@blp.route("/endpoints", methods=["GET"])
@blp.arguments(schemas.EndpointsQuery, location="query")
@blp.answers(200, schemas.EndpointList)
@requires("sagemaker_endpoint:list")
def list_endpoints(query: dict[str, Any]) -> dict[str, Any]:
    """The endpoints that the caller sees, newest first; `username` picks those that this user created."""
    caller, username, limit = current_caller(), query["username"], query["limit"]
    other = username if username != caller.name else None
    if other:
        wired().directory.check([other], [])
    found = wired().endpoints.page(_sight(caller), other, limit, query["last_evaluated_key"])
    return {
        "endpoints": wired().backends.counted(found[:limit]),
        "last_evaluated_key": next_key(found, limit, "created_at"),
    }


@blp.route("/endpoints", methods=["DELETE"])
@blp.arguments(schemas.EndpointsToDelete)
@blp.answers(200, schemas.Nothing, "Endpoints deleted")
@requires("sagemaker_endpoint:delete")
def delete_endpoints(body: dict[str, Any]) -> dict[str, Any]:
    """End endpoints by their names or ids; all of them or, when one is not the caller's, none."""
    caller = current_caller()
    wired().directory.check_may_act_for(caller, body["username"])
    names = body.get("endpoint_name_list", []) + body.get("delete_endpoint_list", [])
    found = wired().endpoints.find_all(names, _sight(caller))
    for endpoint in found:
        if endpoint["creator"] != caller.name and not caller.may("sagemaker_endpoint:all"):
            raise NotYours(endpoint["name"])
    for endpoint in found:
        wired().endpoints.begin_deletion(endpoint["_id"])
    if found:
        wired().controller.move_jobs()
        wired().controller.reconcile()
    return {}


@blp.route("/endpoints/<name>", methods=["GET"])
@blp.answers(200, schemas.Endpoint)
@requires("sagemaker_endpoint:list")
def get_endpoint(name: str) -> dict[str, Any]:
    """One endpoint by its name or id."""
    return wired().backends.counted([_found(name)])[0]


@blp.route("/endpoints/<name>/instances", methods=["GET"])
@blp.answers(200, schemas.Instances)
@requires("sagemaker_endpoint:list")
def get_instances(name: str) -> dict[str, Any]:
    """The workers of an endpoint and what they do."""
    endpoint = _found(name)
    backend = wired().backends.of(endpoint)
    instances = backend.instances(endpoint) if backend else []
    if not current_caller().may("sagemaker_endpoint:all"):
        # A worker serves others too: what it loads and runs for them is theirs.
        instances = [instance | {"loaded": [], "running": []} for instance in instances]
    return {"instances": instances}


def _sight(caller: Caller) -> Sight:
    return Sight(caller.name, caller.roles, everything=caller.may("sagemaker_endpoint:all"))


def _found(name: str) -> repository.Endpoint:
    endpoint = wired().endpoints.find(name, _sight(current_caller()))
    if endpoint is None:
        raise EndpointNotFound(name)
    return endpoint
