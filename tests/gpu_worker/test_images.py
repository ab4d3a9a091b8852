"""Pictures in requests: every kind that people send is read, and what cannot be read is said."""

import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gpu_worker.errors import RequestFault
from gpu_worker.images import MAX_PIXELS, flatten, read_picture, read_pictures

RED = (220, 20, 10)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def near(one: Any, other: Any, tolerance: int = 6) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "  DATA:image/webp;base64,\n"])
def test_a_picture_is_read_with_and_without_its_prefix(kind: str, prefix: str) -> None:
    picture = read_picture("image", prefix + encoded(Image.new("RGB", (9, 7), RED), kind))
    assert (picture.size, picture.mode) == ((9, 7), "RGB")
    assert near(picture.getpixel((4, 3)), RED)


def test_base64_of_web_pages_and_lines_is_read() -> None:
    text = encoded(Image.new("RGB", (9, 7), RED))
    wrapped = "\n".join(text[start : start + 20] for start in range(0, len(text), 20))
    for variant in (wrapped, text.rstrip("="), text.replace("+", "-").replace("/", "_")):
        assert read_picture("image", variant).size == (9, 7)


def test_grey_palette_and_cmyk_become_colours() -> None:
    assert read_picture("image", encoded(Image.new("L", (4, 4), 99))).getpixel((0, 0)) == (99, 99, 99)
    palette = Image.new("RGB", (4, 4), RED).quantize(4)
    assert near(read_picture("image", encoded(palette)).getpixel((0, 0)), RED)
    cmyk = Image.new("RGB", (16, 16), RED).convert("CMYK")
    assert near(read_picture("image", encoded(cmyk, "JPEG")).getpixel((8, 8)), RED)


def test_sixteen_bits_are_scaled_and_not_cut_off() -> None:
    deep = Image.fromarray(np.full((4, 4), 0x8040, dtype=np.uint16))
    assert read_picture("image", encoded(deep)).getpixel((0, 0)) == (0x80, 0x80, 0x80)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_kept_until_it_is_flattened(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (*RED, 0))
    clear.putpixel((0, 0), (*RED, 255))
    picture = read_picture("image", encoded(clear.convert(mode)))
    assert picture.mode == "RGBA"
    flat = flatten(picture)
    assert flat.mode == "RGB"
    assert flat.getpixel((3, 3)) == (255, 255, 255)
    assert flatten(picture, "#000000").getpixel((3, 3)) == (0, 0, 0)
    assert flat.getpixel((0, 0)) != (255, 255, 255)


def test_a_photograph_taken_sideways_is_upright() -> None:
    sideways = Image.new("RGB", (8, 4), (0, 0, 0))
    sideways.paste(RED, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    picture = read_picture("image", encoded(sideways, "PNG", exif=exif))
    assert picture.size == (4, 8)
    assert picture.getpixel((2, 1)) == RED
    assert picture.getpixel((2, 6)) == (0, 0, 0)


def bomb(width: int, height: int) -> str:
    """A tiny PNG that promises a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("size", [(8192, 8192), (60_000, 60_000), (20_000, 1)])
def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(RequestFault, match=rf"image .*{MAX_PIXELS}|image has too many pixels"):
        read_picture("image", bomb(*size))


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_cut_off_picture_is_refused(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    content = base64.b64decode(encoded(noise, kind))
    cut = base64.b64encode(content[: int(len(content) * share)]).decode()
    with pytest.raises(RequestFault, match=r"^image is "):
        read_picture("image", cut)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "image must be a picture as base64 text, not None"),
        (7, "image must be a picture as base64 text, not 7"),
        ("", "image must be a picture as base64 text"),
        ("https://example.org/a.png", "not an address"),
        ("s3://bucket/key.png", "not an address"),
        ("data:image/png,abc", "must be base64"),
        ("data:image/png;base64", "must be base64"),
        ("§§§", "image is not valid base64 text"),
        ("A", "image is not valid base64 text"),
        (base64.b64encode(b"GIF89a" + b"x" * 50).decode(), "send PNG, JPEG or WEBP"),
        (base64.b64encode(b"<svg/>").decode(), "send PNG, JPEG or WEBP"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_fields_name(value: Any, says: str) -> None:
    with pytest.raises(RequestFault, match=says):
        read_picture("image", value)


def test_a_list_names_the_entry_at_fault() -> None:
    good = encoded(Image.new("RGB", (4, 4)))
    assert len(read_pictures("init_images", [good, good], most=2)) == 2
    with pytest.raises(RequestFault, match=r"init_images\[1\] is not valid base64"):
        read_pictures("init_images", [good, "§"], most=2)
    with pytest.raises(RequestFault, match="at most 1 pictures, it has 2"):
        read_pictures("init_images", [good, good], most=1)
    for nothing in ([], None, good):
        with pytest.raises(RequestFault, match="init_images must be a list"):
            read_pictures("init_images", nothing, most=1)
