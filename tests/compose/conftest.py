"""The compose stack that all of these tests use: built and started once, removed with its data at the end."""

from collections.abc import Iterator

import pytest

from tests.compose.project import Project, engine_answers

NAME = "sdfleet-test"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/compose" in str(item.path):
            item.add_marker(pytest.mark.compose)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The running project. Skips where there is no engine."""
    if not engine_answers():
        pytest.skip("no Docker engine with compose answers here")
    made = Project.make(NAME, tmp_path_factory.mktemp("compose"))
    try:
        made.compose("up", "--detach", "--build", "--wait", "--wait-timeout", "600")
        yield made
    finally:
        made.compose("--profile", "*", "down", "--volumes", "--remove-orphans")
