"""What AWS says when it will not, and what that means: refused for good, not allowed, or not now."""

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from services.common.errors import ApiError, BadRequest

LONGEST_MESSAGE = 600
DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
PASSING = {
    "ConcurrentUpdateException",
    "InternalFailure",
    "InternalServiceException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
# SageMaker says "ValidationException" also where others have a code of their own.
INVALID = {"ValidationException", "ValidationError"}
ABSENT = {"ObjectNotFoundException", "ResourceNotFound", "ResourceNotFoundException"}


class RefusedByAws(BadRequest):
    """AWS will not do this, however often it is asked."""


class DeniedByAws(ApiError):
    """AWS does not let this deployment do it: its administrator has to."""

    status = 502


class NotNow(Exception):
    """AWS does not answer, or is asked too often; the next round asks again."""


def translated(error: ClientError | BotoCoreError) -> Exception:
    """The failure that stands for what AWS, or the way to it, said."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return DeniedByAws(_denied("no credentials were found"))
    if not isinstance(error, ClientError):
        return NotNow(type(error).__name__)
    code, message = code_of(error), _message(error)
    if code in DENIED:
        return DeniedByAws(_denied(message))
    if code in PASSING or error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) >= 500:
        return NotNow(code)
    if code == "ResourceLimitExceeded":
        return RefusedByAws(f"ResourceLimitExceeded: {message}")
    if code in INVALID and "instanceType" in message and "enum value set" in message:
        return RefusedByAws(
            "SageMaker does not know this instance_type: use one of its own, such as ml.g5.2xlarge"
        )
    return RefusedByAws(f"SageMaker refuses the endpoint: {message}")


def is_there_already(error: ClientError) -> bool:
    """Whether what was to be created is there."""
    return code_of(error) in INVALID and "already existing" in _message(error)


def is_absent(error: ClientError) -> bool:
    """Whether what was asked for is not there."""
    message = _message(error)
    told = "Could not find" in message or message.startswith(("No scaling policy", "No scalable target"))
    return code_of(error) in ABSENT or (code_of(error) in INVALID and told)


def is_in_progress(error: ClientError) -> bool:
    """Whether the endpoint is being changed, so that it cannot be deleted yet."""
    return code_of(error) in INVALID and "in-progress" in _message(error)


def code_of(error: ClientError) -> str:
    """AWS's name of the failure."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _message(error: ClientError) -> str:
    message = str(error.response.get("Error", {}).get("Message", ""))
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"


def _denied(message: str) -> str:
    return (
        f"AWS does not let this deployment manage SageMaker endpoints ({message}): "
        "its administrator finds the permissions that are needed in docs/aws.md"
    )
