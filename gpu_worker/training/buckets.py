"""Resolution buckets: sizes of about the same area, so that pictures are trained near their own shape."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageOps


@dataclass(frozen=True, slots=True)
class Bucket:
    """A size in pixels."""

    width: int
    height: int


def make_buckets(width: int, height: int, step: int, least: int, most: int) -> list[Bucket]:
    """Every size in steps of `step` whose area is at most width x height, the largest for each width.

    The rule of NovelAI's aspect ratio bucketing (blog.novelai.net, 2022), which kohya's scripts follow too.
    """
    area, found = width * height, {Bucket(width, height)}
    for side in range(max(least, step), min(most, area // least) + 1, step):
        other = min(area // side // step * step, most)
        if other >= least:
            found |= {Bucket(side, other), Bucket(other, side)}
    return sorted(found, key=lambda bucket: (bucket.width, bucket.height))


def nearest(width: int, height: int, buckets: Sequence[Bucket]) -> Bucket:
    """The bucket whose shape is nearest to the picture's; of those the largest."""
    ratio = width / height

    def distance(bucket: Bucket) -> tuple[float, int]:
        own = bucket.width / bucket.height
        return max(own / ratio, ratio / own), -bucket.width * bucket.height

    return min(buckets, key=distance)


def fill(picture: Image.Image, bucket: Bucket) -> Image.Image:
    """The picture scaled until it covers the bucket, the middle of it."""
    return ImageOps.fit(picture, (bucket.width, bucket.height), Image.Resampling.LANCZOS)
