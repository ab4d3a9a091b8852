"""Enlarges pictures: Lanczos, nearest pixels, or a network of the job's Upscaler models, in tiles."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from gpu_worker.device import Device, is_lost_device, is_out_of_memory
from gpu_worker.errors import Dropped, JobFault, MachineFault, RequestFault
from gpu_worker.esrgan import Network, build
from gpu_worker.files import StoredFile
from gpu_worker.images import MAX_PIXELS
from gpu_worker.jobs import ModelFile
from gpu_worker.safetensors_header import read_header
from gpu_worker.tasks import TaskContext

UPSCALER_TYPE = "Upscaler"
NONE = "None"
# The WebUI's defaults of ESRGAN_tile and ESRGAN_tile_overlap are 192 and 8. What a pixel of an RRDBNet sees
# fades within a few pixels, so that twice the overlap leaves no seam.
TILE = 192
OVERLAP = 16
SMALLEST_TILE = 32
SIZE_MULTIPLE = 8
# So often may a network be applied to reach a size, as in the WebUI.
ROUNDS = 3
MAX_RESULT_PIXELS = 2 * MAX_PIXELS

# The WebUI's names of upscalers, and the files that it downloads for them.
FILES_OF_NAMES = {
    "ESRGAN_4x": "ESRGAN",
    "R-ESRGAN General 4xV3": "realesr-general-x4v3",
    "R-ESRGAN General WDN 4xV3": "realesr-general-wdn-x4v3",
    "R-ESRGAN AnimeVideo": "realesr-animevideov3",
    "R-ESRGAN 4x+": "RealESRGAN_x4plus",
    "R-ESRGAN 4x+ Anime6B": "RealESRGAN_x4plus_anime_6B",
    "R-ESRGAN 2x+": "RealESRGAN_x2plus",
}


class Upscaler(Protocol):
    """Enlarges a picture by a factor that may be its own in place of `factor`."""

    @property
    def name(self) -> str:
        """What the infotext calls it."""

    def enlarge(self, picture: Image.Image, factor: float, check: Callable[[], None]) -> Image.Image:
        """The enlarged picture; `check` may raise to stop."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """A built-in upscaler."""

    name: str
    filter: Image.Resampling

    def enlarge(self, picture: Image.Image, factor: float, check: Callable[[], None]) -> Image.Image:
        """Resamples to exactly `factor`."""
        check()
        return picture.resize((int(picture.width * factor), int(picture.height * factor)), self.filter)


@dataclass(frozen=True, slots=True)
class NetworkUpscaler:
    """A loaded network; enlarges by its own factor, whatever is asked."""

    name: str
    network: Network
    device: Device

    def enlarge(self, picture: Image.Image, factor: float, check: Callable[[], None]) -> Image.Image:
        """Applies the network once; transparency is enlarged by Lanczos beside it."""
        result = run_tiled(self.network, picture.convert("RGB"), self.device, check)
        if picture.mode == "RGBA":
            result.putalpha(picture.getchannel("A").resize(result.size, Image.Resampling.LANCZOS))
        return result


BUILT_IN = {
    upscaler.name: upscaler
    for upscaler in (
        Resampling("Lanczos", Image.Resampling.LANCZOS),
        Resampling("Nearest", Image.Resampling.NEAREST),
    )
}


def find_upscaler(context: TaskContext, field: str, name: str) -> Upscaler | None:
    """The upscaler of a name that the WebUI or a file has; None for ``None``; raises `RequestFault`."""
    if name in ("", NONE):
        return None
    if name in BUILT_IN:
        return BUILT_IN[name]
    file = named_file(context.job.of_type(UPSCALER_TYPE), FILES_OF_NAMES.get(name, name))
    if file is None:
        names = [PurePosixPath(one.name).stem for one in context.job.of_type(UPSCALER_TYPE)]
        raise RequestFault(
            f"{field} {name[:80]!r} is not known: use {', '.join([NONE, *BUILT_IN, *names])}, or name its "
            f"file in models.{UPSCALER_TYPE}"
        )
    return load_upscaler(context, file)


def named_file(files: list[ModelFile], name: str) -> ModelFile | None:
    """The file of that name, with or without its ending, in whatever case."""
    wanted = name.casefold()
    for file in files:
        if wanted in (file.name.casefold(), PurePosixPath(file.name).stem.casefold()):
            return file
    return None


def load_upscaler(context: TaskContext, file: ModelFile) -> NetworkUpscaler:
    """A network in memory; raises `RequestFault` when the file is at fault."""
    device = context.memory.device

    def load(stored: StoredFile) -> tuple[NetworkUpscaler, int]:
        network, names = build(read_header(stored.path, file.name), file.name)
        tensors = load_file(stored.path)
        network.load_state_dict({new: tensors[old] for old, new in names.items()}, assign=True)
        network.requires_grad_(False).eval()
        network.to(device.torch_device, dtype=device.dtype)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        size = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
        return NetworkUpscaler(PurePosixPath(file.name).stem, network, device), size

    return context.memory.other(UPSCALER_TYPE, file, context.open_file, load)


def upscale_by(
    picture: Image.Image, factor: float, upscaler: Upscaler, check: Callable[[], None]
) -> Image.Image:
    """The picture `factor` times as large, both sides rounded down to multiples of eight.

    A network is applied up to three times until that size is reached, then Lanczos takes what is too much:
    ``Upscaler.upscale`` in modules/upscaler.py of the WebUI.
    """
    target = tuple(
        max(SIZE_MULTIPLE, int(side * factor) // SIZE_MULTIPLE * SIZE_MULTIPLE) for side in picture.size
    )
    return upscale_to(picture, (target[0], target[1]), factor, upscaler, check)


def upscale_to(
    picture: Image.Image, size: tuple[int, int], factor: float, upscaler: Upscaler, check: Callable[[], None]
) -> Image.Image:
    """The picture in exactly `size`, enlarged as `upscale_by` does it."""
    if size[0] * size[1] > MAX_RESULT_PIXELS:
        raise RequestFault(
            f"the enlarged picture would have {size[0]}x{size[1]} pixels, allowed are {MAX_RESULT_PIXELS}"
        )
    for _ in range(ROUNDS):
        if picture.width >= size[0] and picture.height >= size[1]:
            break
        before = picture.size
        picture = upscaler.enlarge(picture, factor, check)
        if picture.size == before:
            break
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def run_tiled(
    network: Network, picture: Image.Image, device: Device, check: Callable[[], None], tile: int = TILE
) -> Image.Image:
    """The network over a picture in tiles, which are halved when they do not fit into memory."""
    while True:
        try:
            return _run_tiles(network, picture, device, check, tile)
        except (Dropped, JobFault):
            raise
        except Exception as error:
            if is_lost_device(error):
                raise MachineFault("the GPU of the worker failed") from error
            if not is_out_of_memory(error):
                raise
        if tile // 2 < SMALLEST_TILE:
            raise RequestFault("the picture does not fit into this worker's memory; send a smaller one")
        tile //= 2
        if device.is_cuda:
            torch.cuda.empty_cache()


def _run_tiles(
    network: Network, picture: Image.Image, device: Device, check: Callable[[], None], tile: int
) -> Image.Image:
    width, height = picture.size
    scale = network.scale
    if width * height * scale * scale > MAX_RESULT_PIXELS:
        raise RequestFault(
            f"a picture of {width}x{height} pixels is too large for this upscaler, which makes it {scale} "
            f"times as large: at most {MAX_RESULT_PIXELS} pixels are allowed"
        )
    source = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    result = np.empty((height * scale, width * scale, 3), dtype=np.uint8)
    rows, columns = (math.ceil(side / tile) for side in (height, width))
    with torch.inference_mode():
        for top in range(0, rows * tile, tile):
            for left in range(0, columns * tile, tile):
                check()
                bottom, right = min(top + tile, height), min(left + tile, width)
                # Each tile sees OVERLAP pixels of its neighbours, which are then cut away.
                y, x = max(0, top - OVERLAP), max(0, left - OVERLAP)
                part = source[..., y : min(bottom + OVERLAP, height), x : min(right + OVERLAP, width)]
                part = part.to(device.torch_device, device.dtype, memory_format=torch.channels_last) / 255
                made = (
                    network(part)[0]
                    .float()
                    .clamp(0, 1)
                    .mul(255)
                    .round()
                    .byte()
                    .permute(1, 2, 0)
                    .cpu()
                    .numpy()
                )
                inner = made[
                    (top - y) * scale : (bottom - y) * scale, (left - x) * scale : (right - x) * scale
                ]
                result[top * scale : bottom * scale, left * scale : right * scale] = inner
    return Image.fromarray(result)
