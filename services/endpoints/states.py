"""The states of an endpoint's life and what each means."""

from enum import StrEnum


class Status(StrEnum):
    """As the API shows them, but for the last; RollingBack occurs at SageMaker only."""

    CREATING = "Creating"
    IN_SERVICE = "InService"
    UPDATING = "Updating"
    ROLLING_BACK = "RollingBack"
    DELETING = "Deleting"
    DELETED = "Deleted"
    FAILED = "Failed"
    # Its creation was refused while it was under way: it was never shown, and what was made of it is removed.
    WITHDRAWN = "Withdrawn"


class EndpointType(StrEnum):
    """Serverless is known by name only, to refuse it in its own words."""

    ASYNC = "Async"
    REAL_TIME = "Real-time"
    SERVERLESS = "Serverless"


# These take jobs and machines; a role may have one of each type.
SERVING = (Status.CREATING, Status.IN_SERVICE, Status.UPDATING, Status.ROLLING_BACK)
# These the controller looks after.
LIVE = (*SERVING, Status.DELETING)
# These are listed and keep their name.
SHOWN = (*LIVE, Status.FAILED)
