"""Where trainings keep their states, samples and results in S3."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from services.common.s3 import ObjectStore
from services.training.errors import Refused

URL_SECONDS = 6 * 3600  # a part of a slow worker; every attempt has keys of its own


class WorkStorage:
    """The objects of long work in the platform's bucket."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects

    @staticmethod
    def folder(work: Mapping[str, Any]) -> str:
        """The key prefix of everything that belongs to the work, with the last slash."""
        return f"train/{work['model_name']}/{work['_id']}/"

    def key(self, work: Mapping[str, Any], name: str) -> str:
        """The key of a file that the current attempt makes: a late attempt cannot overwrite it."""
        return f"{self.folder(work)}output/{work['attempt']}/{name}"

    def input_location(self, work: Mapping[str, Any]) -> str:
        """The `s3://` address where the client's own files for the work go."""
        return self.objects.location(f"{self.folder(work)}input")

    def location(self, work: Mapping[str, Any]) -> str:
        """The `s3://` address of what the work makes."""
        return self.objects.location(f"{self.folder(work)}output")

    def input_url(self, work: Mapping[str, Any], name: str) -> str:
        """Where the client PUTs a file of their own."""
        return self.objects.presign_put(f"{self.folder(work)}input/{name}")

    def sagemaker_key(self, work: Mapping[str, Any], name: str) -> str:
        """The key of what SageMaker reads and writes; one training job at a time does, for all attempts."""
        return f"{self.folder(work)}output/sagemaker/{name}"

    def sagemaker_location(self, work: Mapping[str, Any], name: str) -> str:
        """The `s3://` address of it."""
        return self.objects.location(self.sagemaker_key(work, name))

    def write_input(self, work: Mapping[str, Any], name: str, content: bytes) -> None:
        """Put what SageMaker reads."""
        self.objects.write(self.sagemaker_key(work, f"input/{name}"), content)

    def read_url(self, key: str, audience: str = "worker") -> str:
        """Where a worker or client fetches a file."""
        return self.objects.presign_get(key, audience, URL_SECONDS if audience == "worker" else None)

    def begin_upload(self, key: str, parts: int) -> tuple[str, list[str]]:
        """A multipart upload's id, and the URL of each part."""
        made = self.objects.client.create_multipart_upload(Bucket=self.objects.bucket, Key=key)
        upload_id = made["UploadId"]
        urls = [
            self.objects.presign_part(key, upload_id, number, "worker", URL_SECONDS)
            for number in range(1, parts + 1)
        ]
        return upload_id, urls

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """Put the parts together; a repeat after the object is there is fine. Raises Refused."""
        parts = [{"ETag": f'"{etag}"', "PartNumber": number} for number, etag in enumerate(etags, 1)]
        try:
            self.objects.client.complete_multipart_upload(
                Bucket=self.objects.bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},  # type: ignore[typeddict-item]
            )
        except ClientError as error:
            if self.objects.size_of(key) is None:
                reason = error.response.get("Error", {}).get("Message", "")
                raise Refused(f"S3 refused the parts of {key.rsplit('/', 1)[-1]}: {reason}") from None

    def tidy(self, work: Mapping[str, Any], keep: Collection[str]) -> None:
        """Delete what the work made, but for these keys, and end its unfinished uploads."""
        made = f"{self.folder(work)}output/"
        self._abort_uploads(made)
        self.objects.delete([key for key in self.objects.keys_under(made) if key not in keep])

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; absent ones are ignored."""
        self.objects.delete(keys)

    def purge(self, work: Mapping[str, Any]) -> None:
        """Delete everything that belongs to the work."""
        prefix = self.folder(work)
        self._abort_uploads(prefix)
        self.objects.delete_under(prefix)

    def _abort_uploads(self, prefix: str) -> None:
        pages: Any = self.objects.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.objects.bucket, Prefix=prefix
        )
        for page in pages:
            for upload in page.get("Uploads", ()):
                if upload["Key"].startswith(prefix):
                    self.objects.client.abort_multipart_upload(
                        Bucket=self.objects.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
