"""One running stack for all tests through the gateway."""

from collections.abc import Iterator

import pytest

from tests.running import Running, running_stack


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    settings = {
        # The source of imports is a server of the test's on this address; by its name it stays refused.
        "CHECKPOINTS_IMPORT_ALLOW": "127.0.0.1",
        # A test waits until the files of a deleted checkpoint are gone.
        "CHECKPOINTS_PROMISED_SECONDS": "5",
    }
    with running_stack(tmp_path_factory.mktemp("stack"), **settings) as ready:
        yield ready
