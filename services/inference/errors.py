"""Failures of the inference service, by name."""

from services.common.errors import ApiError, BadRequest, Conflict, Forbidden, NotFound


class InferenceNotFound(NotFound):
    """No such job, or not the caller's."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"inference with id {job_id} not found")


class CheckpointsNotFound(BadRequest):
    """Models that do not exist or that the caller may not use."""

    def __init__(self, missing: list[dict[str, str]]) -> None:
        sentences = [
            f"checkpoint with name {model['name']}, type {model['type']} is not found" for model in missing
        ]
        super().__init__("; ".join(sentences), errors={"models": sentences})


class NoEndpoint(BadRequest):
    """None of the user's roles has an endpoint that takes jobs."""

    def __init__(self, endpoint_type: str, username: str) -> None:
        super().__init__(f'no available {endpoint_type} endpoints for user "{username}"')


class EndpointNotAvailable(BadRequest):
    """The named endpoint is not there for this user."""

    def __init__(self, name: str, username: str) -> None:
        super().__init__(f'endpoint "{name}" is not available for user "{username}"')


class ParametersMissing(BadRequest):
    """The job was started before its parameters were uploaded."""

    message = (
        "the parameters are not uploaded: PUT them to api_params_s3_upload_url, then start the inference"
    )


class ParametersNotJson(BadRequest):
    """The uploaded parameters cannot be read."""

    message = "the uploaded parameters are not a JSON object: upload them again, then start the inference"


class ParametersRefused(BadRequest):
    """A parameter that cannot be honoured."""


class AlreadyFinished(Conflict):
    """The job's life is over."""

    def __init__(self, job_id: str, status: str) -> None:
        super().__init__(f"inference {job_id} is already finished: {status}")


class AttemptOver(Conflict):
    """The worker's attempt is no longer the current one."""

    message = "this attempt is over: the job was finished, cancelled, deleted or given to another worker"


class TooManyStreams(ApiError):
    """Listening costs memory and a connection each."""

    status = 429

    def __init__(self, of_user: int) -> None:
        super().__init__(
            f"too many streams of events are open ({of_user} of them yours): close some, "
            "or ask GET /inferences/{id} now and then",
            headers={"Retry-After": "5"},
        )


class WebhookNotFound(NotFound):
    """No such webhook, or not the caller's."""

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"webhook with id {webhook_id} not found")


class TooManyWebhooks(BadRequest):
    """A user has as many as are allowed."""

    def __init__(self, most: int) -> None:
        super().__init__(f"a user may have {most} webhooks: delete one first")


class StillRunning(ApiError):
    """A Real-time job outlasted the wait."""

    status = 504
    message = "the job is not finished yet and goes on: ask GET /inferences/{id}"


class PriorityRefused(Forbidden):
    """A priority above what the caller's roles may give."""

    def __init__(self, priority: int, highest: int) -> None:
        super().__init__(f"priority may be at most {highest} for your roles, not {priority}")


class QuotaExceeded(ApiError):
    """A limit of the user's is reached; later it will not be."""

    status = 429

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class TooManyWaiting(QuotaExceeded):
    """All places in line that the user may have are taken."""

    def __init__(self, limit: int, retry_after: int = 10) -> None:
        super().__init__(
            f"{limit} of your jobs wait already, and your roles allow no more: start this one when one of "
            "them has begun or is cancelled",
            retry_after,
        )
        self.limit = limit


class TooManyImages(QuotaExceeded):
    """The day's images do not suffice for the job."""

    def __init__(self, limit: int, spent: int, images: int, retry_after: int) -> None:
        super().__init__(
            f"your roles allow {limit} images a day (UTC), {spent} of today's are taken and this job makes "
            f"{images}",
            retry_after,
        )
