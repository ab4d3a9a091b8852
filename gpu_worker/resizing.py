"""Brings a picture to a size in the WebUI's ways: stretch, cut off, or fill up with the edges' colours."""

from PIL import Image

JUST_RESIZE, CROP, FILL, LATENT_UPSCALE = range(4)


def resize(mode: int, picture: Image.Image, width: int, height: int) -> Image.Image:
    """``resize_image`` in modules/images.py of the WebUI; works on colours and on masks."""
    if mode in (JUST_RESIZE, LATENT_UPSCALE):
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    ratio, own_ratio = width / height, picture.width / picture.height
    is_wider = ratio > own_ratio
    by_width = is_wider if mode == CROP else ratio < own_ratio
    inner_width = width if by_width else picture.width * height // picture.height
    inner_height = height if not by_width else picture.height * width // picture.width
    inner = picture.resize((max(1, inner_width), max(1, inner_height)), Image.Resampling.LANCZOS)
    result = Image.new(picture.mode, (width, height))
    left, top = width // 2 - inner.width // 2, height // 2 - inner.height // 2
    result.paste(inner, (left, top))
    if mode == FILL:
        _fill_edges(result, inner, left, top)
    return result


def _fill_edges(result: Image.Image, inner: Image.Image, left: int, top: int) -> None:
    """Draws the outermost row or column of `inner` on to the edge of `result`."""
    width, height = result.size
    if top > 0:
        bottom = height - top - inner.height
        first, last = (0, 0, inner.width, 1), (0, inner.height - 1, inner.width, inner.height)
        result.paste(inner.resize((width, top), box=first), (0, 0))
        if bottom > 0:
            result.paste(inner.resize((width, bottom), box=last), (0, top + inner.height))
    elif left > 0:
        right = width - left - inner.width
        first, last = (0, 0, 1, inner.height), (inner.width - 1, 0, inner.width, inner.height)
        result.paste(inner.resize((left, height), box=first), (0, 0))
        if right > 0:
            result.paste(inner.resize((right, height), box=last), (left + inner.width, 0))
