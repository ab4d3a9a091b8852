"""The ways in which a job ends without pictures, told apart by who is to act."""

from typing import ClassVar


class JobFault(Exception):
    """A failure that is reported to the inference service; its text is a sentence that users may read."""

    kind: ClassVar[str] = "passing"


class RequestFault(JobFault):
    """The request or one of its files is at fault: the job fails at once, no other attempt can help."""

    kind = "request"


class Passing(JobFault):
    """Something outside failed that may work again: the job is requeued."""

    kind = "passing"


class MachineFault(JobFault):
    """This machine cannot go on (a lost GPU): the job is requeued, the process exits for its supervisor."""

    kind = "machine"


class Dropped(Exception):
    """The work is no longer wanted from this worker; nobody is told."""


class Cancelled(Dropped):
    """The user cancelled the job."""


class AttemptLost(Dropped):
    """The lease passed to another attempt (409) or the job is gone (404)."""


class Released(Dropped):
    """The worker stops before the job ends: the job is given back, the attempt does not count."""


class ServiceUnreachable(Exception):
    """A service does not answer or answers 5xx; the call may be repeated."""


class ServiceRefused(Exception):
    """A service answered a call with an unexpected 4xx."""
