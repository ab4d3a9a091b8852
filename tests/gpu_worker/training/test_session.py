"""Whole trainings of tiny models, SD 1.x and SDXL: what they leave behind, and how they go on."""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from gpu_worker.device import choose_device
from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.jobs import ModelFile
from gpu_worker.loading import load_checkpoint
from gpu_worker.training.session import Session
from gpu_worker.training.transfer import sha256_of
from gpu_worker.training.work import Work
from tests.gpu_worker import tiny


@dataclass
class Folder:
    """`Outside` in a folder of the test's."""

    base: Path
    kept: Path
    stop_at: int | None = None
    die_at: int | None = None
    stop_wanted: bool = False
    must_save: bool = False
    told: dict[str, Any] = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    outcome: tuple[bool, Mapping[str, Any]] | None = None
    result: Path | None = None

    def check(self) -> None:
        pass

    def note(self, **changes: Any) -> None:
        self.told |= changes
        step = changes.get("step")
        self.stop_wanted = self.stop_wanted or (self.stop_at is not None and step == self.stop_at)
        if self.die_at is not None and step == self.die_at:
            raise KeyboardInterrupt

    def note_loss(self, step: int, loss: float) -> None:
        self.losses.append((step, loss))

    @contextmanager
    def open(self, model: ModelFile) -> Iterator[StoredFile]:
        yield StoredFile(self.base, sha256_of(self.base))

    def fetch(self, name: str, url: str, most: int) -> bytes:
        content = io.BytesIO()
        width, height = (int(side) for side in url.split("x"))
        Image.effect_mandelbrot((width, height), (-2, -1, 1, 1), 50).convert("RGB").save(content, "PNG")
        return content.getvalue()

    def fetch_state(self, path: Path) -> bool:
        states = sorted(self.kept.glob("*.state"), key=lambda one: one.stat().st_mtime_ns)
        if states:
            path.write_bytes(states[-1].read_bytes())
        return bool(states)

    def keep(self, path: Path, step: int) -> None:
        (self.kept / path.name).write_bytes(path.read_bytes())

    def complete(self, path: Path | None, stopped: bool, facts: Mapping[str, Any]) -> None:
        self.outcome = (stopped, facts)
        if path is not None:
            self.result = self.kept / path.name
            self.result.write_bytes(path.read_bytes())


def work(lora: bool = True, concept: dict[str, Any] | None = None, **config: Any) -> Work:
    picture = {"caption": "a violet star", "size": 1}
    pictures = [picture | {"name": f"{n}.png", "url": size} for n, size in enumerate(("64x64", "96x64"))]
    whole = {
        "prompt": "",
        "class_prompt": "",
        "class_count": 0,
        "repeats": 1,
        "pictures": pictures,
        "class_pictures": [],
    }
    small = {"resolution": 64, "bucket_reso_steps": 8, "learning_rate": 1e-3, "network_dim": 4, "seed": 2}
    return Work.from_json(
        {
            "id": "w",
            "attempt": 1,
            "lease_seconds": 30,
            "kind": "training",
            "result_name": "violet.safetensors",
            "use_lora": lora,
            "params": {"config_params": small | {"max_train_steps": 4} | config},
            "files": [{"type": "Stable-diffusion", "name": "m", "id": "i", "url": "", "size": 1, "etag": ""}],
            "concepts": [whole | (concept or {})],
        }
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {
        "sd1": tiny.write_sd1(folder / "sd1.safetensors"),
        "sdxl": tiny.write_xl(folder / "xl.safetensors"),
    }


@pytest.fixture()
def train(checkpoints: dict[str, Path], tmp_path: Path) -> Callable[..., Folder]:
    def run(family: str = "sd1", folder: str = "kept", described: Work | None = None, **more: Any) -> Folder:
        kept = tmp_path / folder
        kept.mkdir(exist_ok=True)
        outside = Folder(checkpoints[family], kept, **more)
        Session(outside, described or work(), choose_device(), state_seconds=3600).run()
        return outside

    return run


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as opened:
        return dict(opened.metadata())


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_lora_has_kohyas_names_and_changes_what_the_checkpoint_draws(
    train: Callable[..., Folder], checkpoints: dict[str, Path], family: str
) -> None:
    done = train(family, described=work(train_text_encoder=True, network_alpha=2))
    assert done.result is not None
    tensors, said = load_file(done.result), metadata(done.result)
    prefixes = {"sd1": {"unet", "te"}, "sdxl": {"unet", "te1", "te2"}}[family]
    assert {name.split("_")[1] for name in tensors} == prefixes
    endings = {name.partition(".")[2] for name in tensors}
    assert endings == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert (said["ss_network_dim"], said["ss_network_alpha"], said["ss_steps"]) == ("4", "2.0", "4")
    assert said["ss_base_model_version"] == {"sd1": "sd_v1", "sdxl": "sdxl_base_v1-0"}[family]
    assert "a violet star" in said["ss_tag_frequency"]

    pipeline, _ = load_checkpoint(checkpoints[family], "m", choose_device())
    question = {"prompt": "a violet star", "width": 64, "height": 64, "num_inference_steps": 2}

    def draw() -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        return pipeline(**question, generator=generator, output_type="latent").images

    before = draw()
    pipeline.load_lora_weights(str(done.result), adapter_name="violet")
    assert not torch.allclose(before, draw(), atol=1e-4)
    pipeline.set_adapters(["violet"], [0.0])
    assert torch.allclose(before, draw(), atol=1e-4)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_whole_checkpoint_is_trained_and_can_be_loaded(
    train: Callable[..., Folder], checkpoints: dict[str, Path], family: str
) -> None:
    done = train(family, described=work(lora=False, train_text_encoder=True, learning_rate=1e-4))
    assert done.result is not None
    before, after = load_file(checkpoints[family]), load_file(done.result)
    assert set(before) == set(after)
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert {"model", {"sd1": "cond_stage_model", "sdxl": "conditioner"}[family]} <= changed
    assert "first_stage_model" not in changed
    load_checkpoint(done.result, "m", choose_device())


def test_everything_at_once(train: Callable[..., Folder]) -> None:
    """Class pictures, flips, offset noise, min-SNR, accumulation, checkpointing, bf16, saves and samples."""
    concept = {"prompt": "violet [filewords]", "class_prompt": "a star", "class_count": 2, "repeats": 2}
    done = train(
        described=work(
            concept=concept,
            flip_aug=True,
            noise_offset=0.05,
            min_snr_gamma=5,
            gradient_accumulation_steps=2,
            gradient_checkpointing=True,
            mixed_precision="bf16",
            save_precision="float",
            train_batch_size=2,
            num_train_epochs=2,
            max_train_steps=None,
            lr_scheduler="cosine",
            lr_warmup_steps=1,
            caption_dropout_rate=0.1,
            shuffle_caption=True,
            save_every_n_steps=1,
            sample_every_n_steps=2,
            sample_prompts=["a violet star", "a star"],
            save_infer_steps=2,
            class_infer_steps=2,
            xformers=True,
            nonsense=1,
        )
    )
    assert done.told["unknown_parameters"] == ("nonsense",)
    assert done.told["notes"] == ("without effect here: xformers",)
    names = {path.name for path in done.kept.iterdir()}
    assert {"save-1.safetensors", "sample-2-0.png", "sample-2-1.png", "result.safetensors"} <= names
    assert Image.open(done.kept / "sample-2-0.png").size == (64, 64)
    assert [step for step, _ in done.losses] == list(range(1, done.told["steps"] + 1))
    assert done.result is not None
    assert metadata(done.result)["ss_num_reg_images"] == "2"
    assert {tensor.dtype for tensor in load_file(done.result).values()} == {torch.float32}


def test_a_training_that_died_ends_as_one_that_did_not(train: Callable[..., Folder]) -> None:
    config = {"max_train_steps": 6, "save_every_n_steps": 2, "flip_aug": True, "lr_scheduler": "cosine"}
    whole = train(described=work(**config))
    with pytest.raises(KeyboardInterrupt):
        train(folder="broken", described=work(**config), die_at=5)
    again = train(folder="broken", described=work(**config))
    assert again.losses[0][0] == 5  # after the state of step 4
    assert whole.result is not None
    assert again.result is not None
    one, other = load_file(whole.result), load_file(again.result)
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_a_stop_keeps_what_was_learned(train: Callable[..., Folder]) -> None:
    done = train(stop_at=2)
    assert done.outcome == (True, {"training": {"steps": 2, "pictures": 2}})
    assert done.result is not None
    assert metadata(done.result)["ss_steps"] == "2"


def test_a_stop_before_the_first_step_leaves_nothing(train: Callable[..., Folder]) -> None:
    done = train(stop_wanted=True)
    assert (done.outcome, done.result) == ((True, {}), None)


def test_what_cannot_be_trained_is_told(train: Callable[..., Folder]) -> None:
    def sentence(described: Work) -> str:
        with pytest.raises(RequestFault) as fault:
            train(described=described)
        return str(fault.value)

    uncaptioned = {"name": "0.png", "caption": "", "url": "64x64", "size": 1}
    assert "has no caption" in sentence(work(concept={"pictures": [uncaptioned]}))
    assert "the loss is no finite number" in sentence(
        work(lora=False, learning_rate=1, optimizer="SGD", max_grad_norm=0, max_train_steps=99)
    )
    assert "set train_unet" in sentence(work(lora=False, train_unet=False, train_text_encoder=True))
