"""The task rembg: cuts the subject of a picture out with a segmentation network of the job's models."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from gpu_worker.errors import RequestFault
from gpu_worker.images import flatten, read_picture
from gpu_worker.jobs import ModelFile
from gpu_worker.limits import MAX_NAME_LENGTH, flag, text
from gpu_worker.onnx_models import files_of, load_onnx
from gpu_worker.onnx_sessions import OnnxModel
from gpu_worker.tasks import Picture, TaskContext, TaskResult
from gpu_worker.upscaling import NONE, named_file

SEGMENTATION_TYPE = "Segmentation"
KNOWN = frozenset({"input_image", "image", "model", "return_mask", "alpha_matting"})
DEFAULT_SIDE = 320
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# ISNet was trained on pixels around zero that span one, the U²-Net models on ImageNet's statistics:
# rembg/sessions (dis_general_use.py, u2net.py), https://github.com/danielgatis/rembg.
CENTRED = ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
ISNET_NAMES = ("isnet", "dis_", "dis-", "bria", "rmbg")


def run(context: TaskContext) -> TaskResult:
    """Makes one RGBA picture, or with ``return_mask`` the mask, as the WebUI extension's ``/rembg`` does."""
    parameters = context.parameters
    picture = _picture(parameters)
    only_mask = flag("return_mask", parameters.get("return_mask"))
    if flag("alpha_matting", parameters.get("alpha_matting")):
        raise RequestFault("alpha_matting is not supported by this worker, and would change the picture")
    model = load_onnx(context, _file(context, text("model", parameters.get("model"), MAX_NAME_LENGTH)))
    context.progress.start(1, 1)
    mask = subject_mask(model, flatten(picture))
    result = mask if only_mask else cut_out(picture, mask)
    context.progress.step(1, finished=0, batch=1)
    unsupported = [key[:MAX_NAME_LENGTH] for key in parameters if key not in KNOWN][:MAX_NAME_LENGTH]
    info = {"model": model.name, "return_mask": only_mask, "unsupported": unsupported, "infotexts": [""]}
    return TaskResult([Picture(result, "")], info)


def subject_mask(model: OnnxModel, picture: Image.Image) -> Image.Image:
    """How much of the subject each pixel of the RGB picture shows, mode ``L``, in the picture's size."""
    shape = model.inputs[0][1] if model.inputs else ()
    if len(shape) != 4 or shape[1] not in (3, None):
        raise RequestFault(
            f"{model.name} is no segmentation network: it must take pictures of three channels"
        )
    height, width = (side or DEFAULT_SIDE for side in shape[2:])
    outputs = model.run(_normalised(model.name, picture, (width, height)))
    found = np.squeeze(outputs[0]).astype(np.float32)
    if found.ndim != 2 or not np.isfinite(found).all():
        raise RequestFault(f"{model.name} is no segmentation network: it must make one mask")
    low, high = float(found.min()), float(found.max())
    scaled = (found - low) / max(high - low, 1e-6)
    return Image.fromarray((scaled * 255).astype(np.uint8)).resize(picture.size, Image.Resampling.LANCZOS)


def cut_out(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture where the mask is, transparent elsewhere; what is half transparent keeps its colour."""
    result = picture.convert("RGBA")
    result.putalpha(ImageChops.multiply(result.getchannel("A"), mask))
    return result


def _normalised(name: str, picture: Image.Image, size: tuple[int, int]) -> NDArray[np.float32]:
    mean, deviation = CENTRED if any(word in name.casefold() for word in ISNET_NAMES) else IMAGENET
    pixels = np.asarray(picture.resize(size, Image.Resampling.LANCZOS), dtype=np.float32)
    pixels = pixels / max(float(pixels.max()), 1e-6)
    scaled = (pixels - np.array(mean, dtype=np.float32)) / np.array(deviation, dtype=np.float32)
    return scaled.transpose(2, 0, 1)[None].astype(np.float32)


def _picture(parameters: Mapping[str, Any]) -> Image.Image:
    field = "input_image" if "input_image" in parameters or "image" not in parameters else "image"
    return read_picture(field, parameters.get(field))


def _file(context: TaskContext, name: str) -> ModelFile:
    files = files_of(context, SEGMENTATION_TYPE)
    if not files:
        raise RequestFault(
            f"rembg needs a segmentation network: name an .onnx file (u2net.onnx, isnet-general-use.onnx) in "
            f"models.{SEGMENTATION_TYPE}"
        )
    if name in ("", NONE):
        return files[0]
    file = named_file(files, name)
    if file is None:
        raise RequestFault(f"model {name[:80]!r} is not among the job's models.{SEGMENTATION_TYPE}")
    return file
