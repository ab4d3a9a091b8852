"""Deployments of endpoints, which older clients ask for by their ids where jobs are asked for."""

from typing import Any

from services.common.identity import Caller
from services.common.service_client import ServiceClient
from services.inference.errors import InferenceNotFound


class Deployments:
    """What the endpoints service shows of an endpoint."""

    def __init__(self, endpoints: ServiceClient) -> None:
        self._endpoints = endpoints

    def shown(self, deployment_id: str, caller: Caller) -> dict[str, Any]:
        """The endpoint as `GET /endpoints/{id}` answers it to this caller. Raises InferenceNotFound."""
        if not caller.may("sagemaker_endpoint:list"):
            raise InferenceNotFound(deployment_id)
        question = {
            "id": deployment_id,
            "username": caller.name,
            "roles": list(caller.roles),
            "see_all": caller.may("sagemaker_endpoint:all"),
        }
        endpoint = self._endpoints.call("/internal/endpoint", question)["endpoint"]
        if endpoint is None:
            raise InferenceNotFound(deployment_id)
        return dict(endpoint)
