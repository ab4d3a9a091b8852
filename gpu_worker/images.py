"""Reads the pictures that requests carry, whatever they are made of, before anything is computed."""

import base64
import binascii
import io
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps

from gpu_worker.errors import RequestFault
from gpu_worker.limits import shown

# The parameter file has at most 32 MB; a picture in it is a third smaller than its base64.
MAX_ENCODED_BYTES = 24 * 1024 * 1024
MAX_PIXELS = 32 * 1024 * 1024
MAX_SIDE = 16_384
FORMATS = ("PNG", "JPEG", "WEBP")
DATA_PREFIX = "data:"
ADDRESSES = ("http://", "https://", "ftp://", "file://", "s3://")
WHITE = "#ffffff"


def read_picture(field: str, value: Any) -> Image.Image:
    """The picture that `value` holds as base64 text, with or without ``data:image/png;base64,`` before it.

    The result is upright (EXIF) with mode ``RGB``, or ``RGBA`` where the picture has transparency. Palettes,
    grey, CMYK and 16 bits are converted. Raises `RequestFault` naming `field`.
    """
    content = _decoded(field, value)
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            _check_size(field, opened.size)
            opened.load()
            return _uniform(opened)
    except RequestFault:
        raise
    except Image.UnidentifiedImageError:
        raise RequestFault(f"{field} is no picture that can be read: send {_one_of(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise RequestFault(f"{field} has too many pixels: at most {MAX_PIXELS} are allowed") from None
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        TypeError,
        KeyError,
        MemoryError,
    ) as error:
        # What Pillow's decoders raise for content that is cut off or damaged.
        raise RequestFault(f"{field} is damaged or cut off: {str(error)[:120]}") from None


def read_pictures(field: str, value: Any, most: int) -> list[Image.Image]:
    """A list of one to `most` pictures; raises `RequestFault` naming the entry that is at fault."""
    if not isinstance(value, list) or not value:
        raise RequestFault(f"{field} must be a list of at least one picture, not {shown(value)}")
    if len(value) > most:
        raise RequestFault(f"{field} must have at most {most} pictures, it has {len(value)}")
    return [read_picture(f"{field}[{position}]", entry) for position, entry in enumerate(value)]


def flatten(picture: Image.Image, colour: str = WHITE) -> Image.Image:
    """An RGB picture in which what was transparent shows `colour`, as the WebUI's ``images.flatten``."""
    if picture.mode == "RGB":
        return picture
    back = Image.new("RGBA", picture.size, ImageColor.getcolor(colour, "RGBA"))
    back.alpha_composite(picture.convert("RGBA"))
    return back.convert("RGB")


def _decoded(field: str, value: Any) -> bytes:
    if not isinstance(value, str) or not value.strip():
        raise RequestFault(f"{field} must be a picture as base64 text, not {shown(value)}")
    text = value.strip()
    if text.lower().startswith(ADDRESSES):
        raise RequestFault(
            f"{field} must hold the picture itself as base64 text, not an address: nothing is fetched"
        )
    if text[: len(DATA_PREFIX)].lower() == DATA_PREFIX:
        head, comma, text = text.partition(",")
        if not comma or "base64" not in head.lower():
            raise RequestFault(f"{field} must be base64: its {DATA_PREFIX} prefix says something else")
    if len(text) * 3 // 4 > MAX_ENCODED_BYTES:
        raise RequestFault(
            f"{field} must have at most {MAX_ENCODED_BYTES} bytes, it has about {len(text) * 3 // 4}"
        )
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RequestFault(f"{field} is not valid base64 text") from None


def _check_size(field: str, size: tuple[int, int]) -> None:
    width, height = size
    if width * height > MAX_PIXELS or max(size) > MAX_SIDE:
        raise RequestFault(
            f"{field} must have at most {MAX_PIXELS} pixels and sides of at most {MAX_SIDE}, it has "
            f"{width}x{height}"
        )


def _uniform(opened: Image.Image) -> Image.Image:
    picture = opened
    if opened.mode.startswith("I"):
        # 16 bits of grey: Pillow would cut them off at 255 in place of scaling them.
        picture = Image.fromarray((np.asarray(opened).astype(np.uint32) >> 8).astype(np.uint8))
        picture.getexif().update(opened.getexif())
    picture = ImageOps.exif_transpose(picture)
    return picture.convert("RGBA" if picture.has_transparency_data else "RGB")


def _one_of(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
