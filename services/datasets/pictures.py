"""Pictures that strangers uploaded, read within bounds: a few formats, so many bytes, so many pixels."""

import hashlib
import io
import warnings
from dataclasses import dataclass

from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


class NotAPicture(Exception):
    """The file cannot be trained on; the text is a sentence."""


@dataclass(frozen=True)
class Limits:
    """What is read at all."""

    most_bytes: int
    most_pixels: int
    least_side: int


@dataclass(frozen=True)
class Found:
    """What a picture is."""

    width: int
    height: int
    format: str
    sha256: str


def examine(content: bytes, limits: Limits) -> Found:
    """Decode the whole picture once. Raises NotAPicture."""
    picture = decode(content, limits)
    if min(picture.size) < limits.least_side:
        raise NotAPicture(
            f"the picture has {picture.width}x{picture.height} pixels, each side needs {limits.least_side}"
        )
    digest = hashlib.sha256(content).hexdigest()
    return Found(picture.width, picture.height, str(picture.info["format"]), digest)


def decode(content: bytes, limits: Limits) -> Image.Image:
    """The picture as RGB, turned as its EXIF says. Raises NotAPicture.

    The size is looked at before any pixel is decoded; a file that ends early is refused.
    """
    if len(content) > limits.most_bytes:
        raise NotAPicture(f"the file has more than {limits.most_bytes / 1e6:g} MB")
    if not content:
        raise NotAPicture("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                if opened.width * opened.height > limits.most_pixels:
                    raise NotAPicture(
                        f"the picture has {opened.width}x{opened.height} pixels, "
                        f"at most {limits.most_pixels / 1e6:g} million are possible"
                    )
                kind = opened.format
                opened.load()
                picture = _flat(ImageOps.exif_transpose(opened))
    except NotAPicture:
        raise
    except Image.DecompressionBombError:
        raise NotAPicture(
            f"the picture has more pixels than the {limits.most_pixels / 1e6:g} million that are possible"
        ) from None
    except Exception as error:  # Pillow's readers raise anything on broken files
        raise NotAPicture(f"the file is not a whole picture ({', '.join(FORMATS)})") from error
    picture.info["format"] = kind
    return picture


def _flat(picture: Image.Image) -> Image.Image:
    """RGB on white, which is what transparent pictures are seen on."""
    if picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info:
        layers = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return picture.convert("RGB")


def cropped(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled until it covers width x height, the middle of it."""
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled down until it lies within width x height, its sides multiples of 8."""
    scale = min(width / picture.width, height / picture.height, 1.0)
    sides = (max(8, round(side * scale) // 8 * 8) for side in picture.size)
    return ImageOps.fit(picture, tuple(sides), Image.Resampling.LANCZOS)  # type: ignore[arg-type]


def as_png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
