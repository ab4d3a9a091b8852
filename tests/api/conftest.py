"""One running stack for all tests through the gateway."""

from collections.abc import Iterator

import pytest

from tests.running import Running, running_stack


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_stack(tmp_path_factory.mktemp("stack")) as ready:
        yield ready
