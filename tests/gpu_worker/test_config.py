"""Settings come from the environment once; a wrong one is named."""

from pathlib import Path

import pytest

from gpu_worker.config import ConfigError, WorkerConfig

GOOD = {
    "ENDPOINTS_URL": "http://endpoints:8103/",
    "INFERENCE_URL": "http://inference:8104",
    "REDIS_URL": "redis://redis:6379/0",
    "WORKER_SECRET": "s" * 32,
}


def test_defaults() -> None:
    config = WorkerConfig.from_env(GOOD)
    assert config.endpoints_url == "http://endpoints:8103"
    assert config.slots == 4
    assert config.memory_cache_bytes is None
    assert config.worker_id != WorkerConfig.from_env(GOOD).worker_id


def test_everything_stated() -> None:
    stated = {
        "WORKER_ID": "w",
        "WORKER_CACHE_DIR": "/c",
        "WORKER_DISK_CACHE_GB": "1.5",
        "WORKER_MEMORY_CACHE_GB": "2",
    }
    config = WorkerConfig.from_env(GOOD | stated)
    assert (config.worker_id, config.cache_dir) == ("w", Path("/c"))
    assert (config.disk_cache_bytes, config.memory_cache_bytes) == (1_500_000_000, 2_000_000_000)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("WORKER_SECRET", "", "WORKER_SECRET is not set"),
        ("WORKER_SECRET", "short", "at least 32 characters, it has 5"),
        ("INFERENCE_URL", "inference:8104", "INFERENCE_URL must begin with http"),
        ("WORKER_SLOTS", "many", "WORKER_SLOTS must be a number, not 'many'"),
        ("WORKER_SLOTS", "0", "WORKER_SLOTS must be at least 1"),
        ("WORKER_DISK_CACHE_GB", "inf", "finite"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        WorkerConfig.from_env(GOOD | {name: value})
