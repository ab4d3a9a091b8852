"""Users services of a deployment of their own."""

from collections.abc import Callable

import pytest

from tests.users.driver import Driver, users_config


@pytest.fixture(scope="session")
def users(environment: Callable[..., dict[str, str]]) -> Driver:
    """A users service that the tests share; each makes its own users in it."""
    return Driver.of(users_config(environment()))


@pytest.fixture()
def new_users(environment: Callable[..., dict[str, str]]) -> Driver:
    """A users service with nobody but the first administrator."""
    return Driver.of(users_config(environment()))
