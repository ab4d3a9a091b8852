"""Resolution buckets."""

from PIL import Image

from gpu_worker.training.buckets import Bucket, fill, make_buckets, nearest


def test_buckets_have_about_the_same_area_and_both_orientations() -> None:
    buckets = make_buckets(512, 512, 64, 256, 1024)
    assert Bucket(512, 512) in buckets
    assert Bucket(768, 320) in buckets
    assert Bucket(320, 768) in buckets
    assert all(bucket.width * bucket.height <= 512 * 512 for bucket in buckets)
    assert all(256 <= side <= 1024 for bucket in buckets for side in (bucket.width, bucket.height))


def test_a_picture_goes_where_least_of_it_is_cut_off() -> None:
    buckets = make_buckets(512, 512, 64, 256, 1024)
    assert nearest(100, 100, buckets) == Bucket(512, 512)
    wide = nearest(1920, 1080, buckets)
    assert wide.width > wide.height
    assert abs(wide.width / wide.height - 16 / 9) < 0.3
    assert fill(Image.new("RGB", (1920, 1080)), wide).size == (wide.width, wide.height)


def test_a_small_model_has_one_bucket() -> None:
    assert make_buckets(64, 64, 64, 64, 4096) == [Bucket(64, 64)]
