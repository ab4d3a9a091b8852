"""docs/configuration.md says what the code reads."""

import re
from collections.abc import Callable, Iterator, Mapping

import pytest

from gpu_worker import config as worker
from stack import configuration
from stack.settings import ROOT

NEEDED = {
    "ENDPOINTS_URL": "http://e",
    "INFERENCE_URL": "http://i",
    "REDIS_URL": "redis://r",
    "WORKER_SECRET": "s" * 32,
    "TRAINING_URL": "http://t",
}


class Recording(Mapping[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values_, self.asked = values, set[str]()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


def test_the_file_is_up_to_date() -> None:
    assert configuration.FILE.read_text(encoding="utf-8") == configuration.document(), "run `make docs`"


@pytest.mark.parametrize("name", ["WorkerConfig", "ServeConfig", "TrainConfig"])
def test_every_variable_that_a_worker_reads_is_described(name: str) -> None:
    recording = Recording(NEEDED)
    read: Callable[[Mapping[str, str]], object] = getattr(worker, name).from_env
    read(recording)
    assert {variable.name for variable in configuration.of_worker(name)} == recording.asked


def test_no_secret_has_a_default() -> None:
    for variables in configuration.of_services().values():
        for variable in variables:
            if variable.name.endswith(("_SECRET", "_PASSWORD")):
                assert variable.default in (configuration.REQUIRED, "none"), variable.name


def test_every_setting_of_the_gateway_is_in_its_table() -> None:
    script = (ROOT / "gateway" / "render.sh").read_text()
    table = (ROOT / "gateway" / "README.md").read_text()
    read = set(re.findall(r"\$\{([A-Z][A-Z0-9_]+):?-", script))
    assert read
    assert [name for name in sorted(read) if f"`{name}`" not in table] == []
