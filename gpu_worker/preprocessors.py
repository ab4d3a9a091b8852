"""From a picture to the map that a ControlNet follows: edges, lines, tones, by algorithms or by networks."""

import re
from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpu_worker.errors import RequestFault
from gpu_worker.jobs import ModelFile
from gpu_worker.onnx_models import files_of, load_onnx
from gpu_worker.onnx_sessions import OnnxModel
from gpu_worker.tasks import TaskContext

ANNOTATOR_TYPE = "Annotator"
NONE = "none"
INPAINT = ("inpaint", "inpaint_only", "inpaint_global_harmonious")
Pixels = NDArray[np.uint8]
# Picture, threshold_a, threshold_b.
Algorithm = Callable[[Pixels, float, float], Pixels]


def _canny(pixels: Pixels, low: float, high: float) -> Pixels:
    return np.asarray(cv2.Canny(pixels, low, high), np.uint8)


def _invert(pixels: Pixels, _a: float, _b: float) -> Pixels:
    return 255 - pixels


def _threshold(pixels: Pixels, least: float, _b: float) -> Pixels:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.where(grey > least, 255, 0).astype(np.uint8)


def _blur(pixels: Pixels, deviation: float, _b: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), max(deviation, 0.1)), np.uint8)


def _tile(pixels: Pixels, rate: float, _b: float) -> Pixels:
    """Smaller and back to its size by whoever uses it, so that details are left to the model."""
    height, width = pixels.shape[:2]
    small = max(1, round(width / max(rate, 1))), max(1, round(height / max(rate, 1)))
    return np.asarray(cv2.resize(pixels, small, interpolation=cv2.INTER_AREA), np.uint8)


def _lines(pixels: Pixels, deviation: float, least: float) -> Pixels:
    """What is darker than its surroundings, white on black, as strong as the picture's own lines are."""
    values = pixels.astype(np.float32)
    around = cv2.GaussianBlur(values, (0, 0), max(deviation, 0.1))
    darker = np.clip((around - values).min(axis=2), 0, 255)
    strong = darker[darker > least]
    usual = max(16.0, float(np.median(strong)) if strong.size else 0.0)
    return np.clip(darker / usual * 127, 0, 255).astype(np.uint8)


def _scribble(pixels: Pixels, least: float, _b: float) -> Pixels:
    """The difference of two blurs (xDoG), cut to black and white."""
    values = pixels.astype(np.float32)
    difference = cv2.GaussianBlur(values, (0, 0), 0.5) - cv2.GaussianBlur(values, (0, 0), 5.0)
    darker = np.clip(-difference.min(axis=2), 0, 255)
    return np.where(2 * darker > least, 255, 0).astype(np.uint8)


def _soft_edges(pixels: Pixels, deviation: float, _b: float) -> Pixels:
    """The length of the gradient after a blur."""
    values = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), max(deviation, 0.1))
    across, down = (cv2.Sobel(values, cv2.CV_32F, *order, ksize=3) for order in ((1, 0), (0, 1)))
    strength = np.sqrt(across**2 + down**2).max(axis=2)
    return np.clip(strength / max(float(strength.max()), 1.0) * 255, 0, 255).astype(np.uint8)


def _luminance(pixels: Pixels, gamma: float, _b: float) -> Pixels:
    lightness = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[..., 0].astype(np.float32) / 255
    return np.asarray(lightness ** max(gamma, 0.01) * 255, np.uint8)


# Names and default thresholds: scripts/preprocessor/ of https://github.com/Mikubill/sd-webui-controlnet
ALGORITHMS: Mapping[str, tuple[Algorithm, float, float]] = {
    "canny": (_canny, 100, 200),
    "invert": (_invert, 0, 0),
    "threshold": (_threshold, 127, 0),
    "blur_gaussian": (_blur, 9, 0),
    "tile_resample": (_tile, 1, 0),
    "lineart_standard": (_lines, 6, 8),
    "scribble_xdog": (_scribble, 32, 0),
    "softedge_sobel": (_soft_edges, 1, 0),
    "recolor_luminance": (_luminance, 1, 0),
}
OTHER_NAMES = {
    "blur": "blur_gaussian",
    "tile": "tile_resample",
    "lineart": "lineart_standard",
    "scribble": "scribble_xdog",
    "softedge": "softedge_sobel",
    "inpaint": "inpaint_only",
}
# What networks are needed for: the beginnings of the names, and a published file that does it.
NETWORKS: Mapping[str, str] = {
    "depth": "depth_midas.onnx",
    "normal": "normal_bae.onnx",
    "softedge": "softedge_hed.onnx",
    "hed": "softedge_hed.onnx",
    "pidinet": "softedge_pidinet.onnx",
    "lineart": "lineart_realistic.onnx",
    "scribble": "scribble_hed.onnx",
    "seg": "seg_ofade20k.onnx",
}
NOT_DONE: Mapping[str, str] = {
    "openpose": "it needs networks that find and join limbs",
    "dw_openpose": "it needs networks that find and join limbs",
    "densepose": "it needs networks that find and join limbs",
    "animal_openpose": "it needs networks that find and join limbs",
    "mediapipe_face": "it needs networks that find faces' points",
    "mlsd": "it needs a network that finds lines",
    "reference": "it has no ControlNet file and changes the attention of the model itself",
    "ip-adapter": "IP-Adapters are no ControlNets",
    "instant_id": "InstantID is no ControlNet",
    "revision": "it needs CLIP's vision model",
    "t2ia": "T2I-Adapters are no ControlNets",
    "shuffle": "it is random",
}


def known(called: str, name: str) -> str:
    """The preprocessor of a name; raises `RequestFault` for one that there is not."""
    plain = re.sub(r"\s*\(.*\)$", "", name.strip()).casefold() or NONE
    plain = OTHER_NAMES.get(plain, plain)
    if plain == NONE or plain in ALGORITHMS or plain in INPAINT:
        return plain
    for beginning, reason in NOT_DONE.items():
        if plain.startswith(beginning):
            raise RequestFault(
                f"{called}: module {plain[:60]!r} is not done here, because {reason}; send the finished "
                "map as image with module none"
            )
    if any(plain.startswith(beginning) for beginning in NETWORKS):
        return plain
    names = ", ".join([NONE, *ALGORITHMS, *INPAINT])
    raise RequestFault(f"{called}: module {name[:60]!r} is not known; this worker has {names}")


def network_file(context: TaskContext, called: str, module: str) -> ModelFile | None:
    """The file of a module that is a network, None for others; raises `RequestFault` naming a missing one."""
    if module == NONE or module in ALGORITHMS or module in INPAINT:
        return None
    files = files_of(context, ANNOTATOR_TYPE)
    family = module.split("_")[0]
    for word in (module, family):
        for file in files:
            if word in file.name.casefold():
                return file
    example = next(file for beginning, file in NETWORKS.items() if module.startswith(beginning))
    raise RequestFault(
        f"{called}: module {module[:60]!r} needs its network: name an .onnx file ({example}) in "
        f"models.{ANNOTATOR_TYPE}"
    )


def apply(
    context: TaskContext,
    module: str,
    network: ModelFile | None,
    picture: Image.Image,
    thresholds: tuple[float | None, float | None],
) -> Image.Image:
    """The RGB map of a picture."""
    if network is not None:
        return _by_network(load_onnx(context, network), picture)
    if module not in ALGORITHMS:
        return picture
    algorithm, *defaults = ALGORITHMS[module]
    a, b = (default if value is None else value for value, default in zip(thresholds, defaults, strict=True))
    pixels = np.ascontiguousarray(np.asarray(picture.convert("RGB"), dtype=np.uint8))
    return Image.fromarray(algorithm(pixels, a, b)).convert("RGB")


def _by_network(model: OnnxModel, picture: Image.Image) -> Image.Image:
    """One channel becomes grey, three become colours; both are spread from black to white."""
    shape = model.inputs[0][1] if model.inputs else ()
    if len(shape) != 4 or shape[1] not in (3, None):
        raise RequestFault(f"{model.name} is no annotator: it must take pictures of three channels")
    height, width = (side or 512 for side in shape[2:])
    pixels = np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), np.float32)
    found = np.squeeze(model.run((pixels / 255).transpose(2, 0, 1)[None])[0]).astype(np.float32)
    if not (found.ndim == 2 or (found.ndim == 3 and found.shape[0] == 3)) or not np.isfinite(found).all():
        raise RequestFault(f"{model.name} is no annotator: it must make one map of one or three channels")
    low, high = float(found.min()), float(found.max())
    spread = ((found - low) / max(high - low, 1e-6) * 255).astype(np.uint8)
    drawn = Image.fromarray(spread if spread.ndim == 2 else np.ascontiguousarray(spread.transpose(1, 2, 0)))
    return drawn.convert("RGB").resize(picture.size, Image.Resampling.BILINEAR)
