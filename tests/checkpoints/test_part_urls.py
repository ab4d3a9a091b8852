"""Presigned part URLs: the same as boto3's, only faster."""

import re
import time
import uuid
from typing import Literal

import boto3
import pytest
import requests
from botocore.config import Config

from services.checkpoints.part_urls import access_key_of, part_urls
from services.checkpoints.storage import CheckpointStorage
from tests.checkpoints.conftest import Service

KEY = "Lora/checkpoint/custom/x/ü file+a&b=c.safetensors"

UPLOAD = "upload-1/~_+"


def split(url: str) -> tuple[str, list[str]]:
    """The address and the arguments, whose order has no meaning."""
    address, _, query = url.partition("?")
    return address, sorted(query.split("&"))


@pytest.fixture()
def storage(service: Service) -> CheckpointStorage:
    return service.parts.storage


def test_part_urls_equal_those_of_boto3(storage: CheckpointStorage) -> None:
    for _ in range(3):  # the clock may tick between the two
        ours = [split(url) for url in storage.part_urls(KEY, UPLOAD, [1, 2, 9999])]
        theirs = [split(storage.objects.presign_part(KEY, UPLOAD, number)) for number in (1, 2, 9999)]
        if ours == theirs:
            return
    assert ours == theirs


@pytest.mark.parametrize(
    ("endpoint", "style", "token"),
    [
        ("http://s3.example:80", "path", None),
        ("https://s3.example:443", "path", None),
        ("https://s3.example:8443/prefix", "path", None),
        ("http://[::1]:8333", "path", None),
        (None, "virtual", "session/token+with=signs"),
    ],
)
def test_part_urls_are_right_for_every_kind_of_endpoint(
    endpoint: str | None, style: Literal["path", "virtual"], token: str | None
) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="eu-west-1",
        aws_access_key_id="AKIA/EXAMPLE",
        aws_secret_access_key="secret/key",
        aws_session_token=token,
        config=Config(signature_version="s3v4", s3={"addressing_style": style}),
    )

    def presigned(number: int) -> str:
        part = {"Bucket": "bucket", "Key": KEY, "UploadId": UPLOAD, "PartNumber": number}
        return client.generate_presigned_url("upload_part", Params=part)

    while True:  # until the clock does not tick between the two
        first, seventh = presigned(1), presigned(7)
        if re.findall(r"X-Amz-Date=(\w+)", first) == re.findall(r"X-Amz-Date=(\w+)", seventh):
            break
    (ours,) = part_urls(first, "secret/key", [7])
    assert split(ours) == split(seventh)
    assert access_key_of(ours) == "AKIA/EXAMPLE"


def test_s3_takes_parts_at_these_urls_and_refuses_a_changed_number(storage: CheckpointStorage) -> None:
    key = KEY.replace("/x/", f"/{uuid.uuid4()}/")
    upload_id = storage.begin_upload(key)
    (url,) = storage.part_urls(key, upload_id, [10_000])
    assert (
        requests.put(url.replace("partNumber=10000", "partNumber=2"), data=b"x", timeout=9).status_code == 403
    )
    assert requests.put(url, data=b"x", timeout=9).status_code == 200
    assert set(storage.parts(key, upload_id) or ()) == {10_000}
    storage.abort_upload(key, upload_id)


def test_ten_thousand_urls_take_well_under_a_second(storage: CheckpointStorage) -> None:
    began = time.perf_counter()
    urls = storage.part_urls(KEY, "upload", range(1, 10_001))
    took = time.perf_counter() - began
    print(f"10,000 part URLs: {took * 1000:.0f} ms")
    assert len(set(urls)) == 10_000
    assert took < 1
