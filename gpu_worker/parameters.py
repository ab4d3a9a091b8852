"""Reads api_param.json: what a text-to-image job asks for, checked before any model is touched."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpu_worker.errors import RequestFault
from gpu_worker.hires_parameters import KNOWN as HIRES_NAMES
from gpu_worker.image_parameters import KNOWN as IMAGE_NAMES
from gpu_worker.infotext_request import unread
from gpu_worker.limits import (
    MAX_DEPTH,
    MAX_IMAGES,
    MAX_NAME_LENGTH,
    MAX_PARAMETER_BYTES,
    SIZE_MULTIPLE,
    flag,
    number,
    shown,
    text,
    whole,
)
from gpu_worker.noise import Variation
from gpu_worker.sampler_options import NAMES as OPTION_NAMES
from gpu_worker.sampler_options import SETTINGS as OPTION_SETTINGS
from gpu_worker.sampler_options import SamplerOptions, parse_options
from gpu_worker.samplers import SAMPLERS, Sampling, choose_sampling
from gpu_worker.styles import style_names

DEFAULT_SAMPLER = "Euler"
MAX_REPORTED_KEYS = 100
# The scripts of the extension sd-webui-controlnet, which `controlnet_parameters` reads.
CONTROLNET_NAMES = ("controlnet", "sd-webui-controlnet")
MAX_DRAWN_SEED = 2**32

# Honoured, or of no effect on what an API client gets.
KNOWN = frozenset(
    [
        "prompt",
        "negative_prompt",
        "styles",
        "seed",
        "subseed",
        "subseed_strength",
        "steps",
        "cfg_scale",
        "width",
        "height",
        "batch_size",
        "n_iter",
        "sampler_name",
        "sampler_index",
        "scheduler",
        "override_settings",
        "override_settings_restore_afterwards",
        *OPTION_NAMES,
        "seed_resize_from_w",
        "seed_resize_from_h",
        "send_images",
        "save_images",
        "do_not_save_samples",
        "do_not_save_grid",
        "tiling",
        "restore_faces",
        "comments",
        "alwayson_scripts",
        "script_name",
        "script_args",
        "refiner_checkpoint",
        "refiner_switch_at",
        "force_task_id",
        "infotext",
    ]
)
KNOWN_BY_TASK = {"txt2img": KNOWN | HIRES_NAMES, "img2img": KNOWN | IMAGE_NAMES}
KNOWN_SETTINGS = OPTION_SETTINGS | {
    "sd_model_checkpoint",
    "sd_vae",
    "CLIP_stop_at_last_layers",
    "sdxl_clip_l_skip",
    "face_restoration_model",
    "code_former_weight",
}
AUTOMATIC_VAE = frozenset({"", "automatic"})
# The checkpoint's own VAE, whatever others the job has.
OWN_VAE = "none"


@dataclass(frozen=True, slots=True)
class TextToImage:
    """A checked text-to-image request; sizes in pixels, multiples of eight."""

    prompt: str
    negative_prompt: str
    seed: int
    subseed: int
    subseed_strength: float
    seed_size: tuple[int, int] | None
    steps: int
    cfg_scale: float
    width: int
    height: int
    batch_size: int
    n_iter: int
    sampling: Sampling
    options: SamplerOptions
    clip_skip: int
    checkpoint: str | None
    vae: str | None
    styles: tuple[str, ...] = ()
    clip_skip_xl: bool = False
    unsupported: tuple[str, ...] = field(default=())

    @property
    def image_count(self) -> int:
        """All images of the job."""
        return self.batch_size * self.n_iter

    @property
    def seeds(self) -> list[int]:
        """The seed of every image: each counts one up, unless they are variations of one seed."""
        grows = self.subseed_strength == 0
        return [self.seed + (position if grows else 0) for position in range(self.image_count)]

    @property
    def variations(self) -> list[Variation]:
        """What the noise of every image takes from other seeds and sizes."""
        return [
            Variation(self.subseed + position, self.subseed_strength, self.seed_size)
            for position in range(self.image_count)
        ]


def parse_document(content: bytes) -> dict[str, Any]:
    """Parses the file, which may hold Infinity and NaN; raises `RequestFault` for what is no JSON object."""
    if len(content) > MAX_PARAMETER_BYTES:
        raise RequestFault(
            f"the parameters must have at most {MAX_PARAMETER_BYTES} bytes, they have {len(content)}"
        )
    try:
        document = json.loads(content)
    except RecursionError:
        raise RequestFault(
            f"the parameters are not usable: they are nested more than {MAX_DEPTH} deep"
        ) from None
    except ValueError as error:
        raise RequestFault(f"the parameters are not valid JSON: {str(error)[:120]}") from None
    if not isinstance(document, dict):
        raise RequestFault(f"the parameters must be a JSON object, not {shown(document)}")
    check_depth(document)
    return document


def check_depth(document: dict[str, Any]) -> None:
    """Demands what recursive code can walk, level by level; raises `RequestFault`."""
    level: list[Any] = [document]
    for _depth in range(MAX_DEPTH):
        containers = [value for value in level if isinstance(value, dict | list)]
        if not containers:
            return
        level = [item for box in containers for item in (box.values() if isinstance(box, dict) else box)]
    raise RequestFault(f"the parameters are not usable: they are nested more than {MAX_DEPTH} deep")


def parse_text_to_image(
    document: Mapping[str, Any], drawn_seed: int, task_type: str = "txt2img"
) -> TextToImage:
    """Checks what the WebUI's txt2img and img2img have in common; `drawn_seed` is used where it says -1.

    Raises `RequestFault` naming the field for values out of limits and for wishes that this worker cannot
    honour and that would change the picture.
    """
    settings = document.get("override_settings") or {}
    if not isinstance(settings, dict):
        raise RequestFault(f"override_settings must be an object, not {shown(settings)}")
    _refuse_unhonoured(document, task_type)
    seed = whole("seed", document.get("seed"))
    subseed = whole("subseed", document.get("subseed"))
    sampling = _sampling(document)
    request = TextToImage(
        prompt=text("prompt", document.get("prompt")),
        negative_prompt=text("negative_prompt", document.get("negative_prompt")),
        seed=drawn_seed if seed == -1 else seed,
        subseed=secrets.randbelow(MAX_DRAWN_SEED) if subseed == -1 else subseed,
        subseed_strength=number("subseed_strength", document.get("subseed_strength")),
        seed_size=_seed_size(document),
        steps=whole("steps", document.get("steps")),
        cfg_scale=number("cfg_scale", document.get("cfg_scale")),
        width=_size("width", document),
        height=_size("height", document),
        batch_size=_batch_size(document, task_type),
        n_iter=whole("n_iter", document.get("n_iter")),
        sampling=sampling,
        options=parse_options(document, settings, SAMPLERS[sampling.sampler].algorithm is None),
        clip_skip=whole("CLIP_stop_at_last_layers", settings.get("CLIP_stop_at_last_layers")),
        checkpoint=text("sd_model_checkpoint", settings.get("sd_model_checkpoint"), MAX_NAME_LENGTH) or None,
        vae=_vae_name(settings),
        styles=style_names(document.get("styles")),
        clip_skip_xl=flag("sdxl_clip_l_skip", settings.get("sdxl_clip_l_skip")),
        unsupported=_unsupported(document, settings, KNOWN_BY_TASK[task_type]),
    )
    if request.image_count > MAX_IMAGES:
        raise RequestFault(
            f"batch_size x n_iter must be at most {MAX_IMAGES} images, not {request.batch_size} x "
            f"{request.n_iter}"
        )
    return request


def _batch_size(document: Mapping[str, Any], task_type: str) -> int:
    """Several pictures to start from are a batch, as in the WebUI."""
    sources = document.get("init_images")
    if task_type == "img2img" and isinstance(sources, list) and len(sources) > 1:
        return whole("batch_size", len(sources))
    return whole("batch_size", document.get("batch_size"))


def _size(name: str, document: Mapping[str, Any]) -> int:
    """A side in pixels; one that is no multiple of eight is rounded down, as the WebUI does with latents."""
    return whole(name, document.get(name)) // SIZE_MULTIPLE * SIZE_MULTIPLE


def _seed_size(document: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width, in latents, of the picture that the seed is to be known from."""
    height, width = (whole(name, document.get(name)) for name in ("seed_resize_from_h", "seed_resize_from_w"))
    if height <= 0 or width <= 0:
        return None
    return max(1, height // SIZE_MULTIPLE), max(1, width // SIZE_MULTIPLE)


def _sampling(document: Mapping[str, Any]) -> Sampling:
    for name in ("sampler_name", "sampler_index", "scheduler"):
        text(name, document.get(name), MAX_NAME_LENGTH)
    sampler = document.get("sampler_name") or document.get("sampler_index") or DEFAULT_SAMPLER
    return choose_sampling(sampler, document.get("scheduler"))


def _vae_name(settings: Mapping[str, Any]) -> str | None:
    name = text("sd_vae", settings.get("sd_vae"), MAX_NAME_LENGTH)
    folded = name.casefold()
    if folded in AUTOMATIC_VAE:
        return None
    return OWN_VAE if folded == OWN_VAE else name


def _refuse_unhonoured(document: Mapping[str, Any], task_type: str) -> None:
    """Fails for what would make another picture and is not built yet."""
    for name in ("init_images", "mask"):
        if document.get(name) and task_type == "txt2img":
            raise RequestFault(f"{name} is for the task_type img2img: txt2img makes pictures from text alone")
    scripts = document.get("alwayson_scripts") or {}
    if not isinstance(scripts, dict):
        raise RequestFault(f"alwayson_scripts must be an object, not {shown(scripts)}")
    for script, content in scripts.items():
        if script.casefold() not in CONTROLNET_NAMES and _is_enabled(content):
            raise RequestFault(
                f"alwayson_scripts.{script[:60]} is not supported by this worker yet, and would change "
                "the picture"
            )


def _is_enabled(script: Any) -> bool:
    """Whether a script does something: a ControlNet unit counts unless it says ``enabled: false``."""
    arguments = script.get("args") if isinstance(script, dict) else None
    if not arguments:
        return False
    units = (
        [argument for argument in arguments if isinstance(argument, dict)]
        if isinstance(arguments, list)
        else []
    )
    if units:
        return any(unit.get("enabled", True) is not False for unit in units)
    # Scripts without units (Refiner, Seed, …) say first whether they are on.
    return bool(arguments[0]) if isinstance(arguments, list) else True


def _unsupported(
    document: Mapping[str, Any], settings: Mapping[str, Any], known: frozenset[str]
) -> tuple[str, ...]:
    """Names the keys that carry a value and have no effect, for the result's ``info``."""
    keys = [key for key, value in document.items() if key not in known and _says_something(value)]
    keys += [f"override_settings.{key}" for key in settings if key not in KNOWN_SETTINGS]
    keys += [f"infotext: {name}" for name in unread(text("infotext", document.get("infotext")))]
    return tuple(key[:MAX_NAME_LENGTH] for key in keys[:MAX_REPORTED_KEYS])


def _says_something(value: Any) -> bool:
    return value not in (None, False, "", "None", 0, -1) and value != [] and value != {}
