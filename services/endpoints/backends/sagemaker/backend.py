"""Endpoints on Amazon SageMaker: AWS is asked in the background, requests see what was seen last."""

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from services.common.errors import BadRequest
from services.endpoints.backends.protocol import Observed
from services.endpoints.backends.sagemaker import names
from services.endpoints.backends.sagemaker.aws import Aws
from services.endpoints.backends.sagemaker.deployment import Deployment
from services.endpoints.backends.sagemaker.events import read_events
from services.endpoints.backends.sagemaker.failures import DeniedByAws, NotNow, RefusedByAws
from services.endpoints.backends.sagemaker.repository import Deployments, Superseded
from services.endpoints.config import Config
from services.endpoints.repository import Endpoint, Limit
from services.endpoints.states import SERVING, Status

log = logging.getLogger(__name__)

# Less than the lease of a round (life.py), and than the time that a task may take.
ROUND_SECONDS = 20
# SageMaker's states: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeEndpoint.html
STATES = {
    "InService": Status.IN_SERVICE,
    "Updating": Status.UPDATING,
    "SystemUpdating": Status.UPDATING,
    "RollingBack": Status.ROLLING_BACK,
}
BROKEN = {"Failed", "OutOfService", "UpdateRollbackFailed"}


class SageMakerBackend:
    """Every endpoint is a SageMaker endpoint, with its own auto scaling."""

    scales_itself = True

    def __init__(self, deployments: Deployments, aws: Aws, config: Config) -> None:
        self._deployments = deployments
        self._aws = aws
        self._config = config
        self.creation_seconds = config.sagemaker.creation_seconds

    # being asked

    def prepare(self, endpoint: Endpoint) -> dict[str, Any]:
        """Nobody uses it before AWS has begun to make it. Raises BadRequest when there is no image to run."""
        if not (endpoint["custom_docker_image_uri"] or self._config.sagemaker.image_uri):
            raise BadRequest(
                "custom_docker_image_uri is missing, and this deployment has no image of its own "
                "(SAGEMAKER_IMAGE_URI)"
            )
        return {"sagemaker": {}, "unconfirmed": True}

    def limit(self, instance_type: str) -> Limit:
        """The configured ceiling; without one AWS's quota decides when the endpoint is made."""
        ceilings = dict(self._config.sagemaker.ceilings)
        return Limit(ceilings.get(instance_type), ceilings, counted="max_instances")

    def address(self, endpoint: Endpoint) -> dict[str, str | None]:
        """The endpoint to invoke, and where its answers come."""
        return {
            "sagemaker_endpoint_name": names.sagemaker_name(endpoint),
            "sagemaker_output_path": names.output_path(self._config.bucket),
            "sagemaker_failure_path": names.failure_path(self._config.bucket),
        }

    def converge(self, endpoints: Sequence[Endpoint]) -> None:
        """Nothing: AWS is asked by `synchronise`, which takes longer than a request may."""

    def observe(self, endpoints: Sequence[Endpoint]) -> dict[str, Observed]:
        """What was last seen at AWS."""
        return {endpoint["_id"]: _observed(endpoint) for endpoint in endpoints}

    def instances(self, endpoint: Endpoint) -> list[dict[str, Any]]:
        """SageMaker names no instances: as many numbered ones as it counts."""
        seen = endpoint["sagemaker"]
        current, name = seen.get("current", 0), names.sagemaker_name(endpoint)
        return [
            {
                "_id": f"{name}/{number}",
                "host": "SageMaker",
                "instance_type": endpoint["instance_type"],
                "state": "in service" if number < current else "starting",
                "instances": 1,
                "ready": number < current,
                "loaded": [],
                "running": [],
            }
            for number in range(max(current, seen.get("desired", 0)))
        ]

    def shortage(self, endpoint: Endpoint) -> str:
        """What SageMaker says of it now."""
        return f"SageMaker says that the endpoint is {endpoint['sagemaker'].get('status', 'not there yet')}"

    # acting

    def start(self, endpoint: Endpoint) -> None:
        """Make the endpoint at once, so that its creator hears a refusal. Raises RefusedByAws, DeniedByAws.

        What AWS does not answer now is made in the background.
        """
        claimed = self._deployments.claim(endpoint["_id"])
        if claimed is None:
            return
        try:
            self._deployment(claimed).provide()
            self._deployments.confirm(claimed)
        except (NotNow, Superseded) as reason:
            log.info("SageMaker endpoint waits", extra=_about(claimed, reason))
            self._deployments.confirm(claimed)
        finally:
            self._deployments.release(claimed)

    def synchronise(self) -> None:
        """Bring the endpoints at AWS nearer to what is wanted, and see how they are.

        A round ends when its time is over or AWS does not answer; the next one begins with those that this
        one has not seen.
        """
        deadline = time.monotonic() + ROUND_SECONDS
        for endpoint_id in self._deployments.to_look_after(self._told_of_changes()):
            claimed = self._deployments.claim(endpoint_id)
            if claimed is None:
                continue
            try:
                self._look_after(claimed)
            except NotNow as reason:
                log.warning("AWS does not answer", extra=_about(claimed, reason))
                self._deployments.look_again(claimed)
                return
            finally:
                self._deployments.release(claimed)
            if time.monotonic() > deadline:
                return

    def _told_of_changes(self) -> timedelta | None:
        """After how long what is at rest is looked at although no event tells of it; None: in every round."""
        settings = self._config.sagemaker
        if not settings.events_queue_url:
            return None
        try:
            read_events(self._aws, self._deployments, settings.events_queue_url)
        except (NotNow, RefusedByAws, DeniedByAws) as reason:
            log.warning("events of SageMaker are not read", extra={"failure": str(reason)})
            return None
        return timedelta(seconds=settings.events_poll_seconds)

    def _look_after(self, endpoint: Endpoint) -> None:
        serving = endpoint["status"] in SERVING
        try:
            if serving:
                self._deployment(endpoint).provide()
                self._deployments.confirm(endpoint)
            else:
                self._deployment(endpoint).remove()
                self._deployments.trouble(endpoint, None)
        except Superseded as reason:
            log.info("SageMaker endpoint waits", extra=_about(endpoint, reason))
        except (RefusedByAws, DeniedByAws) as refusal:
            log.warning("SageMaker refuses", extra=_about(endpoint, refusal) | {"why": refusal.message})
            if endpoint["status"] == Status.CREATING:
                self._deployments.note(endpoint, failure=refusal.message)
            elif not serving:
                self._deployments.trouble(endpoint, refusal.message)

    def _deployment(self, endpoint: Endpoint) -> Deployment:
        return Deployment(endpoint, self._deployments, self._aws, self._config)


def _observed(endpoint: Endpoint) -> Observed:
    seen = endpoint["sagemaker"]
    status, current = seen.get("status", ""), seen.get("current", 0)
    failure = seen.get("failure")
    if status in BROKEN:
        failure = failure or f"SageMaker says that the endpoint is {status}"
    return Observed(
        placed=seen.get("desired", 0),
        ready=current if status in STATES else 0,
        gone=bool(seen.get("gone")),
        status=STATES.get(status),
        failure=failure,
    )


def _about(endpoint: Endpoint, failure: Exception) -> dict[str, str]:
    return {"endpoint": endpoint["name"], "failure": type(failure).__name__}
