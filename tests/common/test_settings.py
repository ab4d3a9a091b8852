"""Settings from the environment."""

import pytest

from services.common.settings import InternalSettings, MongoSettings, SettingsError, read_settings

SECRET = "a-secret-of-more-than-thirty-two-characters"


def test_defaults_fill_what_is_not_set() -> None:
    assert read_settings(MongoSettings, {"MONGODB_URL": "mongodb://x"}).database_prefix == "sdfleet"


def test_every_missing_variable_is_named() -> None:
    with pytest.raises(SettingsError, match=r"set SERVICE_SECRET: .*; set USERS_URL: "):
        read_settings(InternalSettings, {})


def test_a_short_secret_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="at least 32 characters") as failure:
        read_settings(InternalSettings, {"SERVICE_SECRET": "hunter2", "USERS_URL": "http://users"})
    assert "hunter2" not in str(failure.value)


def test_secrets_are_not_shown() -> None:
    settings = read_settings(InternalSettings, {"SERVICE_SECRET": SECRET, "USERS_URL": "http://users"})
    assert SECRET not in repr(settings)
