"""Every call to SageMaker about training jobs: each may be made twice, with the same outcome."""

import functools
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from services.training.sagemaker.settings import SageMakerSettings

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 600
RUNNING = frozenset({"InProgress", "Stopping"})
# "Come back later": of AWS's common errors, and the quotas of an account, which free themselves.
LATER = frozenset(
    {
        *("InternalFailure", "InternalServerError", "InternalServiceException", "RequestLimitExceeded"),
        *("RequestTimeout", "ResourceLimitExceeded", "ServiceUnavailable", "Throttling"),
        *("ThrottlingException", "TooManyRequestsException", "CapacityError"),
    }
)
_making = threading.Lock()  # boto3 makes clients one after the other


class NotNow(Exception):
    """AWS does not take it now; the text is AWS's sentence."""


class Refused(Exception):
    """AWS will not do this, however often it is asked; the text is AWS's sentence."""


@dataclass(frozen=True)
class Seen:
    """A training job as SageMaker describes it."""

    status: str  # InProgress, Stopping, Stopped, Completed, Failed
    failure: str
    waits_for: str  # what SageMaker says that it does now

    @property
    def is_running(self) -> bool:
        """Whether it may still write."""
        return self.status in RUNNING


class Jobs:
    """The training jobs of this deployment."""

    def __init__(self, settings: SageMakerSettings) -> None:
        self._settings = settings

    def create(self, arguments: Mapping[str, Any]) -> None:
        """Create a job; one of its name that is there is ours. Raises NotNow, Refused."""
        with _failures():
            try:
                self._client.create_training_job(**arguments)
            except ClientError as error:
                if _code(error) != "ResourceInUse":
                    raise

    def look(self, name: str) -> Seen | None:
        """The job now; None when there is none. Raises NotNow, Refused."""
        with _failures():
            try:
                found = self._client.describe_training_job(TrainingJobName=name)
            except ClientError as error:
                if _is_absent(error):
                    return None
                raise
        last = (found.get("SecondaryStatusTransitions") or [{}])[-1]
        return Seen(
            status=found["TrainingJobStatus"],
            failure=found.get("FailureReason") or "",
            waits_for=last.get("StatusMessage") or found.get("SecondaryStatus") or "",
        )

    def stop(self, name: str) -> None:
        """Ask SageMaker to stop the job, which gives its container two minutes. Raises NotNow, Refused."""
        with _failures():
            try:
                self._client.stop_training_job(TrainingJobName=name)
            except ClientError as error:
                # "… is not in a state that can be stopped": it has ended, or is being stopped
                if _code(error) != "ValidationException":
                    raise

    def ended(self, name: str) -> bool:
        """Whether the job writes no more; one that does is stopped, and has to be asked for again."""
        try:
            seen = self.look(name)
            if seen is None or not seen.is_running:
                return True
            self.stop(name)
        except (NotNow, Refused) as reason:
            log.warning("a training job cannot be ended now", extra={"job": name, "why": str(reason)})
        return False

    @property
    def _client(self) -> Any:
        with _making:
            return _client_of(self._settings)


@functools.cache
def _client_of(settings: SageMakerSettings) -> Any:
    return boto3.session.Session().client(
        "sagemaker",
        region_name=settings.region,
        endpoint_url=settings.endpoint_url or None,
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=settings.secret_key or None,
        config=Config(
            connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2, "mode": "standard"}
        ),
    )


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        sentence = f"SageMaker refuses the training job ({_code(error)}): {_message(error)}"
        if _code(error) in LATER or status >= 500:
            raise NotNow(sentence) from error
        raise Refused(sentence) from error
    except BotoCoreError as error:
        raise NotNow(f"SageMaker cannot be reached ({type(error).__name__})") from error


def _is_absent(error: ClientError) -> bool:
    message = _message(error)
    told = "Could not find" in message or "not found" in message
    return _code(error) in {"ResourceNotFound", "ResourceNotFoundException"} or (
        _code(error) in {"ValidationException", "ValidationError"} and told
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _message(error: ClientError) -> str:
    message = str(error.response.get("Error", {}).get("Message", ""))
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"
