"""How a training is done: every setting with its default, and how the values of config_params are read."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpu_worker.errors import RequestFault

SCHEDULERS = (
    *("constant", "constant_with_warmup", "linear", "cosine"),
    *("cosine_with_restarts", "polynomial"),
)
OPTIMIZERS = ("AdamW", "Adam", "SGD")
PRECISIONS = ("no", "fp16", "bf16")
SAVE_PRECISIONS = ("fp16", "bf16", "float")

READ_BEFORE = ""  # the training service has read it: data sets, prompts, names
NO_EFFECT = "-"  # known, and of no meaning here: where files lie on somebody's disk, how memory is saved

Read = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one training; sizes in pixels."""

    use_lora: bool = True
    rank: int = 16
    alpha: float | None = None  # the rank
    dropout: float = 0.0
    train_unet: bool = True
    train_text_encoder: bool = False
    learning_rate: float | None = None  # 1e-4 for a LoRA, 2e-6 for a whole checkpoint
    unet_learning_rate: float | None = None
    text_encoder_learning_rate: float | None = None
    scheduler: str = "constant"
    warmup_steps: int = 0
    cycles: int = 1
    power: float = 1.0
    optimizer: str = "AdamW"
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    steps: int | None = None
    epochs: int | None = None
    repeats: int = 1
    batch_size: int = 1
    accumulation: int = 1
    resolution: tuple[int, int] | None = None  # width, height; what the checkpoint was trained at
    bucketing: bool = True
    bucket_step: int = 64
    smallest_bucket: int = 64
    largest_bucket: int = 4096
    flip: bool = False
    caption_dropout: float = 0.0
    shuffle_captions: bool = False
    noise_offset: float = 0.0
    min_snr_gamma: float = 0.0
    prior_weight: float = 1.0
    class_steps: int = 30
    class_guidance: float = 7.5
    gradient_checkpointing: bool = False
    mixed_precision: str = "no"
    save_precision: str = "fp16"
    clip_skip: int = 0
    save_every_steps: int = 0
    save_every_epochs: int = 0
    sample_every_steps: int = 0
    sample_every_epochs: int = 0
    sample_prompts: tuple[str, ...] = ()
    sample_negative_prompt: str = ""
    sample_steps: int = 20
    sample_guidance: float = 7.0
    seed: int = 0
    comment: str = ""

    @property
    def scale(self) -> float:
        """LoRA's alpha."""
        return float(self.rank) if self.alpha is None else self.alpha

    def rate_of(self, network: str) -> float:
        """The learning rate of ``unet`` or ``text_encoder``."""
        general = self.learning_rate or (1e-4 if self.use_lora else 2e-6)
        own = self.unet_learning_rate if network == "unet" else self.text_encoder_learning_rate
        return general if own is None else own


@dataclass(frozen=True, slots=True)
class Parsed:
    """Settings, and the names in config_params that are unknown, or known to mean nothing here."""

    settings: Settings
    unknown: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def parse(config: Mapping[str, Any], names: Mapping[str, tuple[str, Read]]) -> Parsed:
    """Reads config_params by the table `names`; groups of settings may be nested, as kohya's files have them.

    Raises `RequestFault` that names the setting, the rule and the value.
    """
    values: dict[str, Any] = {}
    unknown: list[str] = []
    ignored: list[str] = []
    for name, value in _flat(config):
        if name not in names:
            unknown.append(name)
            continue
        setting, read = names[name]
        if value is None or value == "" or setting == READ_BEFORE:
            continue
        if setting == NO_EFFECT:
            ignored.append(name)
            continue
        try:
            values[setting] = read(value)
        except (TypeError, ValueError, OverflowError) as reason:
            raise RequestFault(f"config_params.{name} must be {reason}, not {str(value)[:60]!r}") from None
    settings = replace(Settings(), **values)
    if not (settings.train_unet or settings.train_text_encoder):
        raise RequestFault("config_params must train the UNet or the text encoder, both are off")
    return Parsed(settings, tuple(sorted(set(unknown))), tuple(sorted(set(ignored))))


def _flat(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        found += _flat(value) if isinstance(value, Mapping) else [(str(name), value)]
    return found


# How values are read; each raises ValueError with what was expected.


def whole(least: int, most: int) -> Read:
    """A whole number, also as text."""

    def read(value: Any) -> int:
        number = _number(value, f"a whole number from {least} to {most}")
        if number != int(number) or not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(number)

    return read


def number(least: float, most: float) -> Read:
    """A finite number, also as text."""

    def read(value: Any) -> float:
        found = _number(value, f"a number from {least:g} to {most:g}")
        if not least <= found <= most:
            raise ValueError(f"a number from {least:g} to {most:g}")
        return found

    return read


def _number(value: Any, expected: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        found = float(value)
    except (TypeError, ValueError):
        raise ValueError(expected) from None
    if not math.isfinite(found):
        raise ValueError(expected)
    return found


def flag(value: Any) -> bool:
    """true or false, also as text or 1 and 0."""
    words = {"true": True, "false": False, "1": True, "0": False}
    found = words.get(str(value).strip().lower())
    if found is None:
        raise ValueError("true or false")
    return found


def inverted(value: Any) -> bool:
    """The opposite of a flag."""
    return not flag(value)


def positive(value: Any) -> bool:
    """Whether a number is above 0."""
    return flag(value) if isinstance(value, bool) else _number(value, "a number") > 0


def choice(*choices: str) -> Read:
    """One of the words, whatever their case."""

    def read(value: Any) -> str:
        found = {one.lower(): one for one in choices}.get(str(value).strip().lower())
        if found is None:
            raise ValueError(f"one of {', '.join(choices)}")
        return found

    return read


def optimizer(value: Any) -> str:
    """AdamW8bit and its like compute the same with less memory; here they are the plain ones."""
    word = str(value).strip().lower()
    for ending in ("8bit", " 8bit", "_8bit"):
        word = word.removesuffix(ending)
    return str(choice(*OPTIMIZERS)(word.removeprefix("torch ").strip()))


def text(value: Any) -> str:
    """Text of bounded length."""
    if not isinstance(value, str) or len(value) > 2000:
        raise ValueError("text of at most 2000 characters")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts, or lines of one text."""
    lines = value.splitlines() if isinstance(value, str) else value
    if not isinstance(lines, list) or len(lines) > 16:
        raise ValueError("a list of at most 16 texts")
    return tuple(text(line) for line in lines if line)


def size(value: Any) -> tuple[int, int]:
    """Width and height, of "512" or "512,768"."""
    expected = "one number or WIDTH,HEIGHT of 64 to 4096 in steps of 8"
    words = value if isinstance(value, list) else str(value).replace("x", ",").split(",")
    found = [int(_number(word, expected)) for word in words]
    if len(found) not in {1, 2} or any(not 64 <= one <= 4096 or one % 8 for one in found):
        raise ValueError(expected)
    return found[0], found[-1]
