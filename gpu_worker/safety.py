"""The filter for pictures that are not safe for work: a deployment's policy, with a classifier of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from gpu_worker.config import ConfigError, EngineConfig
from gpu_worker.errors import RequestFault
from gpu_worker.onnx_sessions import OnnxModel, open_session

if TYPE_CHECKING:
    from gpu_worker.tasks import Task, TaskContext, TaskResult

DEFAULT_SIDE = 224
BLUR_SHARE = 12  # of the longer side
# Classes of the published classifiers by their number: the places of those that are not safe.
UNSAFE_PLACES = {1: (0,), 2: (1,), 5: (1, 3, 4)}
SENTENCE = "the picture is held back: this service's filter takes it for one that is not safe for work"


class Policy(StrEnum):
    """What happens to a picture that the filter does not let pass."""

    BLUR = "blur"
    BLACK = "black"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class SafetyFilter:
    """A classifier, how sure it must be, and what follows."""

    model: OnnxModel
    policy: Policy
    threshold: float

    def pass_on(self, images: Sequence[Image.Image]) -> tuple[list[Image.Image], list[bool]]:
        """The pictures as they may be given away, and which of them were changed.

        Raises `RequestFault` where the policy is to fail.
        """
        found = [self.score(image) >= self.threshold for image in images]
        if self.policy is Policy.FAIL and any(found):
            raise RequestFault(SENTENCE)
        return [
            self._covered(image) if bad else image for image, bad in zip(images, found, strict=True)
        ], found

    def score(self, image: Image.Image) -> float:
        """How surely a picture is not safe, 0 to 1; raises `RequestFault` for a model of another kind."""
        shape = self.model.inputs[0][1] if self.model.inputs else ()
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise RequestFault(f"the filter's model {self.model.name} takes no pictures of three channels")
        is_last = shape[1] != 3
        height, width = (side or DEFAULT_SIDE for side in (shape[1:3] if is_last else shape[2:4]))
        small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(small, dtype=np.float32) / 255
        # As the published classifiers of either layout were trained: https://huggingface.co/Falconsai/
        # nsfw_image_detection (centred), https://github.com/GantMan/nsfw_model (0 to 1).
        array = pixels[None] if is_last else ((pixels - 0.5) / 0.5).transpose(2, 0, 1)[None]
        return _unsafe(self.model.name, self.model.run(array)[0])

    def _covered(self, image: Image.Image) -> Image.Image:
        if self.policy is Policy.BLACK:
            return Image.new("RGB", image.size)
        return image.convert("RGB").filter(ImageFilter.GaussianBlur(max(image.size) / BLUR_SHARE))


def load_filter(config: EngineConfig) -> SafetyFilter | None:
    """The configured filter, None where it is off; raises `ConfigError` when it cannot work."""
    if config.nsfw == "off":
        return None
    path = config.nsfw_model
    assert path is not None, "the configuration has seen to it"
    try:
        model = open_session(path.name, path.read_bytes())
        loaded = SafetyFilter(model, Policy(config.nsfw), config.nsfw_threshold)
        loaded.score(Image.new("RGB", (64, 64)))
    except (RequestFault, OSError) as error:
        raise ConfigError(f"the file of WORKER_NSFW_MODEL cannot be used: {error}") from error
    return loaded


def safe(task: "Task") -> "Task":
    """A task whose pictures pass the filter before anybody gets them."""

    @wraps(task)
    def run(context: "TaskContext") -> "TaskResult":
        return filtered(context.safety, task(context))

    return run


def filtered(safety: SafetyFilter | None, result: "TaskResult") -> "TaskResult":
    """A result as the policy has it; its ``info`` says what was held back."""
    if safety is None:
        return result
    images, found = safety.pass_on([picture.image for picture in result.pictures])
    pictures = [replace(one, image=image) for one, image in zip(result.pictures, images, strict=True)]
    info: dict[str, Any] = {**result.info, "nsfw_content_detected": found}
    return replace(result, pictures=pictures, info=info)


def _unsafe(name: str, output: NDArray[Any]) -> float:
    scores = np.asarray(output, dtype=np.float64).reshape(-1)
    places = UNSAFE_PLACES.get(len(scores))
    if places is None or not np.isfinite(scores).all():
        raise RequestFault(
            f"the filter's model {name} gives {len(scores)} numbers: 1 (unsafe), 2 (safe, unsafe) or 5 "
            "(drawing, hentai, neutral, porn, sexy) are understood"
        )
    is_probability = scores.min() >= 0 and scores.max() <= 1 + 1e-6
    if len(scores) == 1:
        return float(scores[0] if is_probability else 1 / (1 + np.exp(-scores[0])))
    if not is_probability or abs(scores.sum() - 1) > 1e-3:
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    return float(sum(scores[place] for place in places))
