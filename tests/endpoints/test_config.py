"""What the endpoints service is told from outside."""

from collections.abc import Callable

import pytest

from services.common.settings import SettingsError, read_settings
from services.endpoints.config import Config

Environment = Callable[..., dict[str, str]]


def test_ceilings_are_read_per_instance_type(environment: Environment) -> None:
    config = read_settings(Config, environment(ENDPOINT_CAPACITY="local.cpu=4, ml.g5.2xlarge=2"))
    assert config.ceilings == (("local.cpu", 4), ("ml.g5.2xlarge", 2))


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ENDPOINT_CAPACITY", "local.cpu"),
        ("ENDPOINT_CAPACITY", "=4"),
        ("ENDPOINT_CAPACITY", "local.cpu=-1"),
        ("WORKER_LOST_SECONDS", "0"),
        ("AUTOSCALING_COOLDOWN_SECONDS", "nan"),
        ("ENDPOINT_CREATION_SECONDS", "soon"),
        ("WORKER_SECRET", "short"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(environment: Environment, variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable} is not usable"):
        read_settings(Config, environment(**{variable: text}))
