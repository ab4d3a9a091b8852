"""Every call to the SageMaker runtime."""

import functools
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from services.inference.sagemaker.settings import REALTIME_SECONDS, SageMakerSettings

log = logging.getLogger(__name__)

# "Come back later": of AWS's common errors, and of InvokeEndpoint and InvokeEndpointAsync.
LATER = {
    "ModelNotReadyException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
AFTER_SENDING = (ConnectionClosedError, ReadTimeoutError, ResponseStreamingError)
LEAST_QUEUE_SECONDS = 60  # of RequestTTLSeconds
LONGEST_SENTENCE = 300
POOL_SIZE = 64


class NotNow(Exception):
    """SageMaker takes nothing at the moment: the attempt never began."""


class Refused(Exception):
    """SageMaker does not run this: the endpoint is gone, we may not use it, it failed. The text says so."""


class Unanswered(Exception):
    """The connection ended before the answer: SageMaker may have run it, or may run it still."""


class ContainerFailed(Exception):
    """The container answered a Real-time invocation with a failure; `answer` is what it said."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.answer = answer


@dataclass(frozen=True)
class Places:
    """Where SageMaker puts the answer of an asynchronous invocation, or its failure, as `s3://…`."""

    output: str
    failure: str | None


class SageMakerRuntime:
    """Invokes endpoints. Nothing is tried twice here: that is for those who know what an attempt is."""

    def __init__(self, settings: SageMakerSettings) -> None:
        self._settings = settings
        self._making = threading.Lock()

    def invoke_async(self, endpoint: str, inference_id: str, location: str, seconds: int) -> Places:
        """Put the invocation at `location` into the endpoint's line. Raises NotNow, Refused or Unanswered."""
        with _failures(endpoint):
            answer = self._client.invoke_endpoint_async(
                EndpointName=endpoint,
                InferenceId=inference_id,
                InputLocation=location,
                ContentType="application/json",
                RequestTTLSeconds=max(seconds, LEAST_QUEUE_SECONDS),
                InvocationTimeoutSeconds=seconds,
            )
        return Places(answer["OutputLocation"], answer.get("FailureLocation"))

    def invoke(self, endpoint: str, inference_id: str, document: dict[str, Any]) -> bytes:
        """The container's answer. Raises NotNow, Refused, Unanswered or ContainerFailed."""
        with _failures(endpoint):
            answer = self._client.invoke_endpoint(
                EndpointName=endpoint,
                InferenceId=inference_id,
                Body=json.dumps(document).encode(),
                ContentType="application/json",
                Accept="application/json",
            )
            content: bytes = answer["Body"].read()
        return content

    @functools.cached_property
    def _client(self) -> Any:
        settings = self._settings
        with self._making:
            return boto3.session.Session().client(
                "sagemaker-runtime",
                region_name=settings.region,
                endpoint_url=settings.runtime_url or None,
                aws_access_key_id=settings.access_key or None,
                aws_secret_access_key=settings.secret_key or None,
                config=Config(
                    connect_timeout=5,
                    read_timeout=REALTIME_SECONDS + 10,
                    retries={"total_max_attempts": 1},
                    max_pool_connections=POOL_SIZE,
                ),
            )


@contextmanager
def _failures(endpoint: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        code, message = str(said.get("Code", "")), str(said.get("Message", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        log.warning("SageMaker refused", extra={"sagemaker_endpoint": endpoint, "code": code})
        if code == "ModelError":
            raise ContainerFailed(str(error.response.get("OriginalMessage") or message)) from None
        if code in LATER or status in (429, 503):
            raise NotNow(f"SageMaker endpoint {endpoint} takes nothing now ({code})") from None
        raise Refused(f"SageMaker refused the job: {message[:LONGEST_SENTENCE]} ({code})") from None
    except AFTER_SENDING as error:
        kind = type(error).__name__
        log.warning("SageMaker did not answer", extra={"sagemaker_endpoint": endpoint, "failure": kind})
        raise Unanswered(f"SageMaker endpoint {endpoint} did not answer ({kind})") from None
    except BotoCoreError as error:
        kind = type(error).__name__
        log.warning("SageMaker not reached", extra={"sagemaker_endpoint": endpoint, "failure": kind})
        raise NotNow(f"SageMaker endpoint {endpoint} was not reached ({kind})") from None
