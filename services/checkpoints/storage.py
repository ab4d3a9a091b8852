"""Where checkpoints lie in S3, and their multipart uploads."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import ClientError

from services.checkpoints.errors import UploadRefused
from services.checkpoints.part_urls import access_key_of, part_urls
from services.common.s3 import ObjectStore, is_missing

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CopySourceTypeDef, CORSRuleTypeDef

log = logging.getLogger(__name__)

NOBODY = "https://nobody.invalid"  # RFC 2606: no such name is ever given to a host
COPY_PART_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Part:
    """A part that S3 holds."""

    number: int
    etag: str  # without quotes
    size: int
    modified: datetime


# By number, the newest last: SeaweedFS keeps what was PUT to the same number before, and completes with the
# one whose ETag is named.
Parts = dict[int, list[Part]]


@dataclass(frozen=True)
class Stored:
    """An object that S3 holds."""

    size: int
    etag: str  # without quotes


def folder(checkpoint_type: str, checkpoint_id: str) -> str:
    """The key prefix of a checkpoint's objects, without the last slash."""
    return f"{checkpoint_type}/checkpoint/custom/{checkpoint_id}"


def key_of(checkpoint_type: str, checkpoint_id: str, filename: str) -> str:
    """The key of a checkpoint's file."""
    return f"{folder(checkpoint_type, checkpoint_id)}/{filename}"


class CheckpointStorage:
    """The checkpoints in the platform's bucket."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects
        self._client = objects.client
        self._bucket = objects.bucket

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket

    def check(self) -> None:
        """Raise when S3 or the bucket does not answer."""
        self._client.head_bucket(Bucket=self._bucket)

    def allow_origins(self, origins: Sequence[str]) -> None:
        """Let web pages of these origins use presigned URLs, and no others.

        SeaweedFS lets every origin in while a bucket has no rule; so without origins there is one for nobody.
        """
        rule: CORSRuleTypeDef = {
            "AllowedOrigins": list(origins) or [NOBODY],
            "AllowedMethods": ["GET", "HEAD", "PUT"],
            "AllowedHeaders": ["*"],
            "ExposeHeaders": ["ETag"],  # a page needs it to complete its upload
            "MaxAgeSeconds": 3600,
        }
        try:
            self._client.put_bucket_cors(Bucket=self._bucket, CORSConfiguration={"CORSRules": [rule]})
        except ClientError as error:  # the bucket may be one whose settings are not ours to change
            log.warning(
                "the bucket's CORS was not set", extra={"failure": error.response["Error"].get("Code")}
            )

    def location(self, checkpoint_type: str, checkpoint_id: str) -> str:
        """The `s3://` address of the folder."""
        return self.objects.location(folder(checkpoint_type, checkpoint_id))

    def begin_upload(self, key: str) -> str:
        """Begin a multipart upload; its id."""
        return self._client.create_multipart_upload(Bucket=self._bucket, Key=key)["UploadId"]

    def part_urls(self, key: str, upload_id: str, numbers: Sequence[int]) -> list[str]:
        """URLs to which a client can PUT these parts."""
        first = self.objects.presign_part(key, upload_id, 1)
        access_key, secret_key = self._credentials()
        if not secret_key or access_key_of(first) != access_key:  # keys were rotated between the two calls
            return [self.objects.presign_part(key, upload_id, number) for number in numbers]
        return part_urls(first, secret_key, numbers)

    def _credentials(self) -> tuple[str, str]:
        settings = self.objects.settings
        if settings.access_key:
            return settings.access_key, settings.secret_key
        found = boto3.Session().get_credentials()
        if found is None:
            return "", ""
        frozen = found.get_frozen_credentials()
        return frozen.access_key or "", frozen.secret_key or ""

    def parts(self, key: str, upload_id: str) -> Parts | None:
        """The parts that arrived, by number; None when S3 does not know the upload."""
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._bucket, Key=key, UploadId=upload_id
        )
        try:
            entries = [entry for page in pages for entry in page.get("Parts", ())]
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        found: Parts = {}
        for entry in sorted(entries, key=lambda entry: entry["LastModified"]):
            part = Part(entry["PartNumber"], entry["ETag"].strip('"'), entry["Size"], entry["LastModified"])
            found.setdefault(part.number, []).append(part)
        return found

    def put_part(self, key: str, upload_id: str, number: int, content: bytes | bytearray) -> str:
        """Store one part; its ETag."""
        answer = self._client.upload_part(
            Bucket=self._bucket,
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
            Body=content,  # type: ignore[arg-type]  # botocore takes a bytearray too: no copy is made
        )
        return answer["ETag"].strip('"')

    def complete_upload(self, key: str, upload_id: str, etags: Mapping[int, str]) -> None:
        """Put the parts of these ETags together. Raises UploadRefused when S3 finds them wrong."""
        tags = [{"ETag": f'"{etags[number]}"', "PartNumber": number} for number in sorted(etags)]
        try:
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": tags},  # type: ignore[typeddict-item]
            )
        except ClientError as error:
            if is_missing(error) or error.response["ResponseMetadata"]["HTTPStatusCode"] == 400:
                reason = error.response["Error"].get("Message") or error.response["Error"].get("Code", "")
                raise UploadRefused(key.rsplit("/", 1)[-1], reason) from None
            raise

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Free the parts of an unfinished upload; an absent one is ignored."""
        try:
            self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
        except ClientError as error:
            if not is_missing(error):
                raise

    def abort_uploads(self, prefix: str) -> None:
        """Free every unfinished upload under the prefix: also those that a process began and died."""
        for key, upload_id in self.open_uploads(prefix):
            self.abort_upload(key, upload_id)

    def find(self, key: str) -> Stored | None:
        """The object's size and ETag, None when there is none."""
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return Stored(head["ContentLength"], head["ETag"].strip('"'))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """`length` bytes of the object from byte `start` on."""
        asked = f"bytes={start}-{start + length - 1}"
        body = self._client.get_object(Bucket=self._bucket, Key=key, Range=asked)["Body"]
        with contextlib.closing(body):
            return body.read(length)

    def stream(self, key: str, etag: str, chunk_bytes: int = 2**20) -> Iterator[bytes]:
        """The object of that ETag, piece by piece."""
        body = self._client.get_object(Bucket=self._bucket, Key=key, IfMatch=f'"{etag}"')["Body"]
        with contextlib.closing(body):
            yield from body.iter_chunks(chunk_bytes)

    def copy(self, key: str, new_key: str, size: int) -> None:
        """Copy an object inside S3, in parts where it is larger than one copy may be."""
        source: CopySourceTypeDef = {"Bucket": self._bucket, "Key": key}
        if size <= COPY_PART_BYTES:
            self._client.copy_object(Bucket=self._bucket, Key=new_key, CopySource=source)
            return
        upload_id = self.begin_upload(new_key)
        etags = [
            self._client.upload_part_copy(
                Bucket=self._bucket,
                Key=new_key,
                UploadId=upload_id,
                PartNumber=number,
                CopySource=source,
                CopySourceRange=f"bytes={start}-{min(start + COPY_PART_BYTES, size) - 1}",
            )["CopyPartResult"]["ETag"].strip('"')
            for number, start in enumerate(range(0, size, COPY_PART_BYTES), start=1)
        ]
        self.complete_upload(new_key, upload_id, dict(enumerate(etags, start=1)))

    def delete_object(self, key: str) -> None:
        """Delete one object; an absent one is ignored."""
        self.objects.delete([key])

    def purge(self, *prefixes: str) -> None:
        """Delete every object and every unfinished upload under these folders."""
        for prefix in prefixes:
            self.abort_uploads(f"{prefix}/")
            self.objects.delete_under(f"{prefix}/")

    def open_uploads(self, prefix: str) -> list[tuple[str, str]]:
        """(key, upload id) of every unfinished upload under the prefix."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        return [
            (entry["Key"], entry["UploadId"])
            for page in pages
            for entry in page.get("Uploads", ())
            if entry["Key"].startswith(prefix)
        ]
