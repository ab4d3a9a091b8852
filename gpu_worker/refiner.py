"""The refiner: another checkpoint of the job takes over for the last part of the denoising."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpu_worker.conditioning import Conditioning
from gpu_worker.denoising import Switch
from gpu_worker.errors import RequestFault
from gpu_worker.generation import Canvas, Start
from gpu_worker.infotext import exact
from gpu_worker.jobs import ModelFile
from gpu_worker.limits import MAX_NAME_LENGTH, number, text
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.prompt_encoding import encode_prompts
from gpu_worker.starts import Begin
from gpu_worker.tasks import TaskContext
from gpu_worker.upscaling import named_file

CHECKPOINT_TYPE = "Stable-diffusion"
NONE = ("", "None", "none")


@dataclass(frozen=True, slots=True)
class Refiner:
    """A file of the job, and the share of the noise that is gone when it takes over."""

    context: TaskContext
    file: ModelFile
    switch_at: float

    @property
    def fields(self) -> dict[str, object]:
        """What infotexts say of it."""
        return {"Refiner": self.file.name.rpartition(".")[0], "Refiner switch at": exact(self.switch_at)}

    def wrap(self, begin: Begin) -> Begin:
        """Adds the change of models to a pass."""

        def wrapped(canvas: Canvas) -> Start:
            start = begin(canvas)

            def load() -> tuple[Any, Conditioning]:
                refiner = self.context.memory.refiner(self.file, self.context.open_file)
                _check(canvas.checkpoint, refiner)
                # As in the WebUI LoRAs go on where they fit.
                is_alike = refiner.family is canvas.checkpoint.family
                loras = canvas.plan.networks.loras if is_alike else ()
                refiner.loras.apply(refiner.pipeline, refiner.name, loras)
                conditioning = encode_prompts(refiner, canvas.requests, canvas.plan)
                return refiner.pipeline.unet, conditioning

            return replace(start, hooks=replace(start.hooks, switch=Switch(self.switch_at, load)))

        return wrapped


def find_refiner(context: TaskContext) -> Refiner | None:
    """The job's refiner, None without one; raises `RequestFault` before a checkpoint is loaded."""
    document: Mapping[str, Any] = context.parameters
    wanted = text("refiner_checkpoint", document.get("refiner_checkpoint"), MAX_NAME_LENGTH)
    switch_at = number("refiner_switch_at", document.get("refiner_switch_at"))
    if wanted in NONE or switch_at >= 1:
        return None
    files = context.job.of_type(CHECKPOINT_TYPE)
    file = named_file(files, wanted.split(" [")[0].strip())
    if file is None:
        names = ", ".join(one.name for one in files) or "none"
        raise RequestFault(
            f"refiner_checkpoint {wanted[:80]!r} is not among the job's models.{CHECKPOINT_TYPE} ({names})"
        )
    return Refiner(context, file, switch_at)


def _check(base: LoadedCheckpoint, refiner: LoadedCheckpoint) -> None:
    """The refiner goes on with the base's latents, noise and extra channels: they must be of one kind."""
    ours, other = base.description, refiner.description
    channels = [one.components["vae"]["latent_channels"] for one in (ours, other)]
    kinds = [one.components["scheduler"]["prediction_type"] for one in (ours, other)]
    inputs = [one.architecture.in_channels for one in (ours, other)]
    families = [one.components["vae"]["scaling_factor"] for one in (ours, other)]
    if any(pair[0] != pair[1] for pair in (channels, kinds, inputs, families)):
        raise RequestFault(
            f"refiner_checkpoint {refiner.name} ({refiner.family}) cannot go on with what {base.name} "
            f"({base.family}) begins: their latents differ"
        )
