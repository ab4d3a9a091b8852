"""Failures of the users service."""

from collections.abc import Iterable

from services.common.errors import ApiError, BadRequest, Forbidden, Unavailable
from services.common.identity import PERMISSIONS


class CannotDeleteDefaultRole(BadRequest):
    message = "cannot delete default role"


class CannotWeakenDefaultRole(BadRequest):
    message = "cannot weaken default role, it has every RESOURCE:all"


class LastAdministrator(BadRequest):
    message = "cannot take user:all from the last user who has it"


class UnknownRoles(BadRequest):
    """A user was to get roles that do not exist."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__("user roles {} not exist".format(",".join(f'"{name}"' for name in names)))


class UnknownUser(BadRequest):
    def __init__(self, name: str) -> None:
        super().__init__(f'user: "{name}" not exist')


class NameTaken(BadRequest):
    """A name belongs to what the caller does not see, or would be mistaken for another; not said which."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f'{kind} name "{name}" is taken, or too like one that is')


class UnheldPermissions(Forbidden):
    """Somebody wanted to give what they do not have."""

    message = "you cannot grant permissions that you do not hold"

    def __init__(self, missing: Iterable[str] = ()) -> None:
        wanted = ", ".join(permission for permission in PERMISSIONS if permission in set(missing))
        super().__init__(f"{self.message}: {wanted}" if wanted else None)


class NotYours(Forbidden):
    """The caller may change only what they created and what is not stronger than they are."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f'you may not change the {kind} "{name}"')


class ActingForOthers(Forbidden):
    message = "naming somebody else as creator needs the permission user:all"


class OnlyForAdministrators(Forbidden):
    message = "the delegate scope can be given only by an administrator who holds every permission"


class BoundAndDelegate(BadRequest):
    message = "a key that is bound to a user cannot carry the delegate scope"


class PasswordTooShort(BadRequest):
    """A new password is shorter than the deployment wants."""

    def __init__(self, minimum: int) -> None:
        super().__init__(f"the password is too short (required minimum: {minimum})")


class WrongOldPassword(BadRequest):
    message = "the old password is not right"


class TooManyKeys(BadRequest):
    message = "you have as many API keys as one user may have, delete one first"


class TooManySignIns(Unavailable):
    """So many passwords are being checked that another would hold up everybody's requests."""

    message = "too many sign-ins at this moment, please try again"


class TooManyAttempts(ApiError):
    """Too many sign-ins failed for this user or from this address."""

    status = 429
    message = "Too Many Requests"

    def __init__(self, seconds: int) -> None:
        super().__init__(headers={"Retry-After": str(seconds)})
