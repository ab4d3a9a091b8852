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
        ("BACKENDS", "cloud"),
        ("SAGEMAKER_CONTAINER_ENVIRONMENT", "LOG_LEVEL"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(environment: Environment, variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable} is not usable"):
        read_settings(Config, environment(**{variable: text}))


def test_sagemaker_needs_a_role_to_run_as(environment: Environment) -> None:
    with pytest.raises(SettingsError, match="set SAGEMAKER_EXECUTION_ROLE_ARN"):
        read_settings(Config, environment(BACKENDS="local,sagemaker"))


def test_backends_and_the_containers_settings_are_lists(environment: Environment) -> None:
    config = read_settings(
        Config,
        environment(
            BACKENDS="sagemaker, local",
            SAGEMAKER_EXECUTION_ROLE_ARN="arn:aws:iam::123456789012:role/x",
            SAGEMAKER_CONTAINER_ENVIRONMENT="LOG_LEVEL=DEBUG,A=b=c",
        ),
    )
    assert config.backends == ("sagemaker", "local")
    assert config.sagemaker.container_environment == (("LOG_LEVEL", "DEBUG"), ("A", "b=c"))
