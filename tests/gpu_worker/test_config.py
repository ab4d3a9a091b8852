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
    assert (config.batch_jobs, config.batch_pixels, config.ram_cache_bytes) == (8, None, None)
    assert (config.precision, config.compiled) == ("auto", False)
    assert config.worker_id != WorkerConfig.from_env(GOOD).worker_id


def test_everything_stated() -> None:
    stated = {
        "WORKER_ID": "w",
        "WORKER_CACHE_DIR": "/c",
        "WORKER_DISK_CACHE_GB": "1.5",
        "WORKER_MEMORY_CACHE_GB": "2",
        "WORKER_RAM_CACHE_GB": "0",
        "WORKER_BATCH_JOBS": "3",
        "WORKER_BATCH_PIXELS": "1000000",
        "WORKER_PRECISION": "bf16",
        "WORKER_COMPILE": "yes",
    }
    config = WorkerConfig.from_env(GOOD | stated)
    assert (config.worker_id, config.cache_dir) == ("w", Path("/c"))
    assert (config.disk_cache_bytes, config.memory_cache_bytes) == (1_500_000_000, 2_000_000_000)
    assert (config.ram_cache_bytes, config.batch_jobs, config.batch_pixels) == (0, 3, 1_000_000)
    assert (config.precision, config.compiled) == ("bf16", True)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("WORKER_SECRET", "", "WORKER_SECRET is not set"),
        ("WORKER_SECRET", "short", "at least 32 characters, it has 5"),
        ("INFERENCE_URL", "inference:8104", "INFERENCE_URL must begin with http"),
        ("WORKER_SLOTS", "many", "WORKER_SLOTS must be a number, not 'many'"),
        ("WORKER_SLOTS", "0", "WORKER_SLOTS must be at least 1"),
        ("WORKER_DISK_CACHE_GB", "inf", "finite"),
        ("WORKER_PRECISION", "int8", "WORKER_PRECISION must be one of auto, fp16, bf16, fp32, not 'int8'"),
        ("WORKER_COMPILE", "perhaps", "WORKER_COMPILE must be one of no, yes"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        WorkerConfig.from_env(GOOD | {name: value})
