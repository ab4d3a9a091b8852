"""Models in memory: an LRU by bytes, VAEs by name."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.torch import save_file

from gpu_worker.architecture import Family
from gpu_worker.device import Device
from gpu_worker.files import StoredFile
from gpu_worker.jobs import ModelFile
from gpu_worker.pipelines import ModelMemory
from gpu_worker.single_file_export import convert_vae
from tests.gpu_worker import tiny

opened: list[str] = []


@pytest.fixture(autouse=True)
def nothing_opened() -> None:
    opened.clear()


def model(path: Path, etag: str = "1", model_type: str = "Stable-diffusion") -> ModelFile:
    return ModelFile(model_type, path.name, path.stem, str(path), path.stat().st_size, etag)


@contextmanager
def open_file(file: ModelFile) -> Iterator[StoredFile]:
    opened.append(file.name)
    yield StoredFile(Path(file.url), "abcdef0123456789")


def test_a_checkpoint_in_memory_is_not_loaded_again(models: Path, device: Device) -> None:
    changes: list[int] = []
    memory = ModelMemory(device, None, lambda: changes.append(1))
    file = model(models / "sd1.safetensors")
    first = memory.checkpoint(file, open_file)
    assert memory.checkpoint(file, open_file) is first
    assert opened == ["sd1.safetensors"]
    assert memory.loaded_names == ["sd1.safetensors"]
    assert memory.warm_ids == ["sd1"]
    assert first.short_hash == "abcdef0123"
    assert changes == [1]


def test_another_version_is_loaded_anew(models: Path, device: Device) -> None:
    memory = ModelMemory(device, None)
    memory.checkpoint(model(models / "sd1.safetensors", "1"), open_file)
    memory.checkpoint(model(models / "sd1.safetensors", "2"), open_file)
    assert len(opened) == 2


def test_the_checkpoint_unused_for_longest_leaves_first(models: Path, device: Device) -> None:
    a, b = (model(models / f"{name}.safetensors") for name in ("sd1", "sd1b"))
    memory = ModelMemory(device, limit_bytes=5 * a.size)  # two of them: fp16 on disk, fp32 in memory
    for file in (a, b, a, model(models / "sd1b.safetensors", "2")):
        memory.checkpoint(file, open_file)
    assert opened == ["sd1.safetensors", "sd1b.safetensors", "sd1b.safetensors"]
    assert memory.loaded_names == ["sd1.safetensors", "sd1b.safetensors"]


def test_a_checkpoint_larger_than_the_limit_is_served_alone(models: Path, device: Device) -> None:
    memory = ModelMemory(device, limit_bytes=1)
    for name in ("sd1", "sd1b"):
        memory.checkpoint(model(models / f"{name}.safetensors"), open_file)
    assert memory.loaded_names == ["sd1b.safetensors"]


def test_a_vae_is_kept_beside_checkpoints(tmp_path: Path, device: Device) -> None:
    tensors = {key: value.contiguous() for key, value in convert_vae(tiny.vae(3)).items()}
    save_file(tensors, tmp_path / "v.safetensors", tiny.METADATA)
    memory = ModelMemory(device, None)
    file = model(tmp_path / "v.safetensors", model_type="VAE")
    assert memory.vae(file, Family.SD1, open_file) is memory.vae(file, Family.SD1, open_file)
    assert memory.loaded_names == ["v.safetensors"]


def test_a_model_that_must_leave_rests_in_ram_and_comes_back_unread(models: Path, device: Device) -> None:
    memory = ModelMemory(device, limit_bytes=1, ram_bytes=10**9)
    a, b = (model(models / f"{name}.safetensors") for name in ("sd1", "sd1b"))
    first = memory.checkpoint(a, open_file)
    for file in (b, a, b):
        memory.checkpoint(file, open_file)
    assert memory.checkpoint(a, open_file) is first
    assert opened == ["sd1.safetensors", "sd1b.safetensors"]
    assert sorted(memory.warm_ids) == ["sd1", "sd1b"]


def test_ram_is_bounded_too(models: Path, device: Device) -> None:
    a, b = (model(models / f"{name}.safetensors") for name in ("sd1", "sd1b"))
    memory = ModelMemory(device, limit_bytes=1, ram_bytes=3 * a.size)  # one: fp16 on disk, fp32 in memory
    for file in (a, b, model(models / "sd1.safetensors", "2"), b, a):
        memory.checkpoint(file, open_file)
    assert opened == ["sd1.safetensors", "sd1b.safetensors", "sd1.safetensors", "sd1.safetensors"]
    assert len(memory.warm_ids) == 2


def test_what_left_is_really_gone(models: Path, device: Device) -> None:
    """Nothing keeps a model alive that was sent away: memory over many switches is flat."""
    memory = ModelMemory(device, limit_bytes=1)
    gone = []
    for round_number in range(4):
        for name in ("sd1", "sd1b"):
            loaded = memory.checkpoint(model(models / f"{name}.safetensors", str(round_number)), open_file)
            gone.append(weakref.ref(loaded.pipeline.unet))
            del loaded
    assert [reference() is None for reference in gone] == [True] * 7 + [False]
