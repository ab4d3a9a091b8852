"""One training from its description to its uploaded result."""

import logging
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image
from torch import Tensor

from gpu_worker.architecture import Family
from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.single_file_export import save_single_file
from gpu_worker.training import state
from gpu_worker.training.buckets import Bucket
from gpu_worker.training.examples import Example
from gpu_worker.training.facts import facts_of
from gpu_worker.training.loading import Encoder, Source, default_size, load_networks
from gpu_worker.training.lora_file import save_lora
from gpu_worker.training.names import NAMES
from gpu_worker.training.networks import SAVED_AS, Networks
from gpu_worker.training.outside import Outside
from gpu_worker.training.settings import Settings, parse
from gpu_worker.training.state import Learning
from gpu_worker.training.trainer import Trainer, make_trainer
from gpu_worker.training.work import Work

log = logging.getLogger(__name__)

LARGEST_PICTURE = 100_000_000
SMOOTHING = 0.05  # of the loss that is shown
CURVE_POINTS = 1000


@dataclass
class Session:
    """One attempt at a training."""

    outside: Outside
    work: Work
    device: Device
    state_seconds: float
    folder: Path = field(default_factory=Path)
    began: float = field(default_factory=time.time)

    def run(self) -> None:
        """Trains, uploads and completes; raises `JobFault` or `Dropped`."""
        with tempfile.TemporaryDirectory(prefix="sdfleet-training-") as folder:
            self.folder = Path(folder)
            settings = self._settings()
            (base,) = self.work.files
            self.outside.note(doing="fetching the checkpoint")
            with self.outside.open(base) as stored:
                self._train(settings, base.name, stored)

    def _train(self, settings: Settings, name: str, stored: StoredFile) -> None:
        self.outside.note(doing="loading the checkpoint")
        networks = load_networks(stored.path, name, settings, self.device)
        if networks.family is Family.SD2 and not settings.use_lora:
            raise RequestFault(
                "whole checkpoints of Stable Diffusion 2.x cannot be written: set use_lora to true"
            )
        examples = self._examples(networks, settings)
        trainer = make_trainer(networks, examples, settings, self.device.torch_device)
        self._resume(trainer)
        watcher = Watcher(self, trainer)
        trainer.run(watcher)
        stopped = trainer.learning.step < trainer.order.total_steps
        facts = facts_of(self.work, networks, trainer, examples, (name, stored), self.began)
        if stopped and trainer.learning.step == 0:
            self.outside.complete(None, True, {})
            return
        self.outside.note(doing="storing the result")
        path = self.save_result(networks, "result.safetensors", facts)
        told = {"training": {"steps": trainer.learning.step, "pictures": len(examples)}}
        self.outside.complete(path, stopped, told)

    def save_result(self, networks: Networks, name: str, facts: Mapping[str, Any]) -> Path:
        """The LoRA, or the whole checkpoint, in a file."""
        path = self.folder / name
        try:
            if networks.settings.use_lora:
                save_lora(networks, path, facts)
            else:
                said = {key: value for key, value in facts.items() if isinstance(value, str)}
                dtype = SAVED_AS[networks.settings.save_precision]
                save_single_file(networks.pipeline, path, dtype, networks.base_metadata | said)
        except ValueError as error:
            raise RequestFault(f"the result cannot be stored: {error}") from error
        return path

    def _settings(self) -> Settings:
        config = self.work.params.get("config_params") or {}
        parsed = parse(config, NAMES)
        settings, notes = parsed.settings, []
        settings = replace(settings, use_lora=bool(self.work.document["use_lora"]))
        if not self.device.is_cuda and settings.mixed_precision == "fp16":
            notes.append("mixed_precision fp16 needs a GPU: this worker computes in 32 bits")
            settings = replace(settings, mixed_precision="no")
        if not settings.use_lora and not settings.train_unet:
            raise RequestFault("a whole checkpoint is trained with its UNet: set train_unet")
        if parsed.ignored:
            notes.append(f"without effect here: {', '.join(parsed.ignored)}")
        self.outside.note(unknown_parameters=parsed.unknown, notes=tuple(notes))
        return settings

    # pictures

    def _examples(self, networks: Networks, settings: Settings) -> list[Example]:
        """All pictures as latents; those that are drawn come last, as their drawing takes longest."""
        size = settings.resolution or default_size(networks)
        encoder, examples = Encoder(networks, size), []
        concepts, missing = self.work.document["concepts"], []
        for concept in concepts:
            own = self._encoded(encoder, concept["pictures"], concept["prompt"])
            others = self._encoded(encoder, concept["class_pictures"], concept["class_prompt"], is_class=True)
            examples += own * int(concept["repeats"]) + others
            missing.append(int(concept["class_count"]) - len(others))
        for concept, count in zip(concepts, missing, strict=True):
            if count > 0 and concept["class_prompt"]:
                examples += self._make_class(networks, concept["class_prompt"], count, size)
        return examples

    def _encoded(
        self,
        encoder: Encoder,
        pictures: Sequence[Mapping[str, Any]],
        prompt: str,
        is_class: bool = False,
    ) -> list[Example]:
        """One picture is in memory at a time."""
        found = []
        for number, picture in enumerate(pictures, 1):
            self.outside.check()
            self.outside.note(doing=f"preparing picture {number} of {len(pictures)}")
            caption = prompt if is_class and prompt else self._caption(picture, prompt)
            name = f"the picture {picture['name']}"
            content = self.outside.fetch(name, picture["url"], LARGEST_PICTURE)
            found.append(encoder.encode(Source(str(picture["name"]), caption, content, is_class)))
        return found

    def _caption(self, picture: Mapping[str, Any], prompt: str) -> str:
        """The picture's own caption, in which `[filewords]` of the prompt is replaced; else the prompt."""
        caption = str(picture["caption"])
        if prompt and "[filewords]" in prompt:
            return prompt.replace("[filewords]", caption).strip()
        if not (caption or prompt):
            raise RequestFault(
                f"the picture {picture['name']} has no caption: give captions or an instance_prompt"
            )
        return caption or prompt

    def _make_class(
        self, networks: Networks, prompt: str, count: int, size: tuple[int, int]
    ) -> list[Example]:
        """Pictures of the class, drawn by the checkpoint itself before it learns: prior preservation
        (Ruiz et al. 2022, arXiv 2208.12242)."""
        settings, made = networks.settings, []
        for number in range(count):
            self.outside.check()
            self.outside.note(doing=f"drawing class picture {number + 1} of {count}")
            seed = random.Random(f"{settings.seed}:class:{prompt}:{number}").getrandbits(32)
            latents = draw(networks, prompt, "", size, settings.class_steps, settings.class_guidance, seed)
            both = torch.cat([latents, torch.zeros_like(latents)]).float().cpu()
            made.append(Example((both,), prompt, Bucket(*size), size, is_class=True))
        return made

    def _resume(self, trainer: Trainer) -> None:
        path = self.folder / "resumed.state"
        if self.outside.fetch_state(path):
            state.load(trainer.learning, path)
            path.unlink()
            log.info("training goes on", extra={"step": trainer.learning.step})


class Watcher:
    """Tells, saves and draws between steps."""

    def __init__(self, session: Session, trainer: Trainer) -> None:
        self._session = session
        self._trainer = trainer
        settings, order = trainer.settings, trainer.order
        self._save_every = settings.save_every_steps or order.steps_of(settings.save_every_epochs)
        self._sample_every = settings.sample_every_steps or order.steps_of(settings.sample_every_epochs)
        self._curve_every = max(1, order.total_steps // CURVE_POINTS)
        self._saved_at = self._began = time.monotonic()
        self._first = trainer.learning.step
        self._smooth: float | None = None

    def wants_end(self) -> bool:
        """Whether a user stopped the training."""
        self._session.outside.check()
        return self._session.outside.stop_wanted

    def stepped(self, learning: Learning, total: int, loss: float) -> None:
        """After every step; raises `Dropped`."""
        self._smooth = loss if self._smooth is None else self._smooth + SMOOTHING * (loss - self._smooth)
        outside, step = self._session.outside, learning.step
        rate = (step - self._first) / max(time.monotonic() - self._began, 1e-6)
        outside.note(
            step=step,
            steps=total,
            loss=round(self._smooth, 6),
            rate=round(rate, 3),
            remaining_seconds=round((total - step) / rate, 1),
            doing="training",
        )
        if step % self._curve_every == 0 or step == total:
            outside.note_loss(step, self._smooth)
        self._keep(learning, total)

    def _keep(self, learning: Learning, total: int) -> None:
        step = learning.step
        if self._sample_every and step % self._sample_every == 0:
            self._draw_samples(step)
        if step == total:
            return
        due = bool(self._save_every) and step % self._save_every == 0
        if due:
            self._save_result(step)
        waited = time.monotonic() - self._saved_at
        if due or waited >= self._session.state_seconds or self._session.outside.must_save:
            self._save_state(step)

    def _save_state(self, step: int) -> None:
        session = self._session
        path = session.folder / f"state-{step}.state"
        state.save(self._trainer.learning, path)
        session.outside.keep(path, step)
        path.unlink()
        self._saved_at = time.monotonic()

    def _save_result(self, step: int) -> None:
        session = self._session
        facts = {"ss_output_name": session.work.result_name, "ss_steps": step}
        networks = self._trainer.learning.networks
        path = session.save_result(networks, f"save-{step}.safetensors", facts)
        session.outside.keep(path, step)
        path.unlink()

    def _draw_samples(self, step: int) -> None:
        session, settings = self._session, self._trainer.settings
        networks = self._trainer.learning.networks
        size = settings.resolution or default_size(networks)
        for number, prompt in enumerate(settings.sample_prompts):
            session.outside.check()
            latents = draw(
                networks,
                prompt,
                settings.sample_negative_prompt,
                size,
                settings.sample_steps,
                settings.sample_guidance,
                settings.seed + number,
            )
            path = session.folder / f"sample-{step}-{number}.png"
            decode(networks, latents).save(path)
            session.outside.keep(path, step)
            path.unlink()


@torch.no_grad()
def draw(
    networks: Networks,
    prompt: str,
    negative_prompt: str,
    size: tuple[int, int],
    steps: int,
    guidance: float,
    seed: int,
) -> Tensor:
    """The latents of a picture, [1, 4, h, w], as the networks draw it now."""
    pipeline = networks.pipeline
    learners = [network for _, network in networks.learners()]
    before = pipeline.scheduler
    pipeline.scheduler = EulerDiscreteScheduler.from_config(before.config)
    for network in learners:
        network.eval()
    try:
        with torch.autocast(pipeline.device.type, enabled=networks.settings.mixed_precision != "no"):
            latents = pipeline(
                prompt,
                negative_prompt=negative_prompt,
                width=size[0],
                height=size[1],
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=torch.Generator().manual_seed(seed),
                output_type="latent",
            ).images
    finally:
        pipeline.scheduler = before
        for network in learners:
            network.train()
    return latents


@torch.no_grad()
def decode(networks: Networks, latents: Tensor) -> Image.Image:
    """The first of the latents as a picture, in the VAE's own precision: SDXL's overflows in fp16."""
    pipeline = networks.pipeline
    scaled = latents.to(pipeline.vae.dtype) / pipeline.vae.config.scaling_factor
    pixels = pipeline.vae.decode(scaled).sample
    picture: Image.Image = pipeline.image_processor.postprocess(pixels.float(), output_type="pil")[0]
    return picture
