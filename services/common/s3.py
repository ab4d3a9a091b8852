"""The platform's bucket: objects for services, presigned URLs for clients and GPU workers."""

import contextlib
import functools
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from services.common.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DELETE_BATCH = 1000  # what one DeleteObjects call takes


class ObjectStore:
    """The bucket as a service uses it; URLs are signed for the address that will be asked."""

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self.bucket = settings.bucket
        self.client = _connect(settings, settings.endpoint_url)
        public = settings.public_url or settings.endpoint_url
        workers = settings.worker_url or settings.endpoint_url
        self._signers = {"client": _connect(settings, public), "worker": _connect(settings, workers)}

    def ensure_bucket(self) -> None:
        """Make the bucket when it is missing."""
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError:
            with contextlib.suppress(
                self.client.exceptions.BucketAlreadyOwnedByYou, self.client.exceptions.BucketAlreadyExists
            ):
                self.client.create_bucket(Bucket=self.bucket)

    def ping(self) -> None:
        """Raise when the bucket does not answer."""
        self.client.head_bucket(Bucket=self.bucket)

    def location(self, key: str) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{key}"

    def presign_get(self, key: str, audience: str = "client", seconds: int | None = None) -> str:
        """A URL from which `audience` ("client" or "worker") can fetch the object."""
        return self._presign("get_object", audience, seconds, Key=key)

    def presign_put(self, key: str, audience: str = "client", seconds: int | None = None) -> str:
        """A URL to which `audience` can PUT the object."""
        return self._presign("put_object", audience, seconds, Key=key)

    def presign_part(
        self,
        key: str,
        upload_id: str,
        part_number: int,
        audience: str = "client",
        seconds: int | None = None,
    ) -> str:
        """A URL to which `audience` can PUT one part of a multipart upload."""
        return self._presign(
            "upload_part", audience, seconds, Key=key, UploadId=upload_id, PartNumber=part_number
        )

    def _presign(self, operation: str, audience: str, seconds: int | None, **parameters: Any) -> str:
        return self._signers[audience].generate_presigned_url(
            operation,
            Params={"Bucket": self.bucket, **parameters},
            ExpiresIn=seconds or self.settings.url_seconds,
        )

    def size_of(self, key: str) -> int | None:
        """The object's size in bytes, None when there is none."""
        try:
            return self.client.head_object(Bucket=self.bucket, Key=key)["ContentLength"]
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def read(self, key: str, limit: int) -> bytes | None:
        """The object's first `limit` bytes at most, None when there is no such object."""
        try:
            body = self.client.get_object(Bucket=self.bucket, Key=key)["Body"]
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        with contextlib.closing(body):
            return body.read(limit)

    def write(self, key: str, content: bytes, content_type: str = "application/json") -> None:
        """Put a small object."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content, ContentType=content_type)

    def keys_under(self, prefix: str) -> Iterator[str]:
        """Every key that begins with `prefix`."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                yield entry["Key"]

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; absent ones are ignored."""
        names = list(keys)
        for start in range(0, len(names), DELETE_BATCH):
            batch = [{"Key": key} for key in names[start : start + DELETE_BATCH]]
            self.client.delete_objects(Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True})  # type: ignore[typeddict-item]

    def delete_under(self, *prefixes: str) -> None:
        """Delete every object under the prefixes."""
        for prefix in prefixes:
            self.delete(self.keys_under(prefix))


_connecting = threading.Lock()  # boto3.client is not safe to call from several threads at once


@functools.cache
def _shared_client(settings: S3Settings, endpoint_url: str) -> "S3Client":
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url or None,
        region_name=settings.region,
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=settings.secret_key or None,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if endpoint_url else "auto"},
            connect_timeout=5,
            read_timeout=60,
            retries={"max_attempts": 3, "mode": "standard"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def _connect(settings: S3Settings, endpoint_url: str) -> "S3Client":
    with _connecting:
        return _shared_client(settings, endpoint_url)


def is_missing(error: ClientError) -> bool:
    """Whether S3 said that there is no such object, bucket or upload."""
    return error.response.get("Error", {}).get("Code") in {"404", "NoSuchKey", "NoSuchBucket", "NoSuchUpload"}
