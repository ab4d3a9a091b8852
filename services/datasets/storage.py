"""Where data sets lie in S3."""

from typing import Any

from services.common.s3 import ObjectStore
from services.datasets.names import folder


class DatasetStorage:
    """The data sets in the platform's bucket."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = objects

    def location(self, name: str, prefix: str = "") -> str:
        """The `s3://` address of the folder."""
        return self.objects.location(folder(name) + prefix).rstrip("/")

    def upload_url(self, key: str) -> str:
        """A URL to which the client can PUT a file."""
        return self.objects.presign_put(key)

    def preview_url(self, key: str) -> str:
        """A URL from which the client can fetch a file."""
        return self.objects.presign_get(key)

    def stored(self, name: str) -> dict[str, tuple[str, int]]:
        """ETag and bytes of every object of a data set, by key."""
        found: dict[str, tuple[str, int]] = {}
        pages: Any = self.objects.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.objects.bucket, Prefix=folder(name)
        )
        for page in pages:
            for entry in page.get("Contents", ()):
                found[entry["Key"]] = (entry["ETag"].strip('"'), entry["Size"])
        return found

    def read(self, key: str, limit: int) -> bytes | None:
        """The object's first `limit` bytes at most, None when there is none."""
        return self.objects.read(key, limit)

    def write(self, key: str, content: bytes, content_type: str) -> None:
        """Put a small object."""
        self.objects.write(key, content, content_type)

    def delete(self, keys: list[str]) -> None:
        """Delete objects; absent ones are ignored."""
        self.objects.delete(keys)

    def purge(self, name: str) -> None:
        """Delete every object of a data set."""
        self.objects.delete_under(folder(name))
