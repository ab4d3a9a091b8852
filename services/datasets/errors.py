"""The failures of the datasets service, each with its status and sentence."""

from services.common.errors import BadRequest, Conflict, Forbidden, NotFound


class DatasetNotFound(NotFound):
    """No such data set, or the caller may not see it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"dataset {name} is not found")


class NotTheCreator(Forbidden):
    """The caller sees the data set, but may not change it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"dataset {name} may be changed by its creator or with the permission train:all")


class ActsForAnother(Forbidden):
    """The body names another user as creator."""

    def __init__(self, creator: str) -> None:
        super().__init__(f'acting for the user "{creator}" needs the permission user:all')


class UnknownUser(BadRequest):
    """The body names a user who does not exist."""

    def __init__(self, username: str) -> None:
        super().__init__(f'user: "{username}" not exist')


class NameTaken(BadRequest):
    """There is a data set of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"dataset {name} already exists, please use another name or delete exists")


class UnusableName(BadRequest):
    """The name of a data set or a file cannot be used."""


class ItemsExist(BadRequest):
    """The data set has files of these names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"the data set has already: {', '.join(names[:10])}; delete them first")


class TooManyItems(BadRequest):
    """A data set has a largest size."""

    def __init__(self, most: int) -> None:
        super().__init__(f"a data set has at most {most} files")


class ItemsNotFound(NotFound):
    """The data set has no pictures of these names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(f"the data set has no picture named: {', '.join(names[:10])}")


class Unfinished(Conflict):
    """The data set is still being made."""

    def __init__(self, name: str) -> None:
        super().__init__(f"dataset {name} is still being made from another one, please try again later")


class NothingToCrop(BadRequest):
    """A data set without good pictures cannot be cropped."""

    def __init__(self, name: str) -> None:
        super().__init__(f"dataset {name} has no verified picture: upload some, then enable it")
