"""The bucket's objects as files, and back with the ETags that they had: records name objects by them."""

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from deploy.backup.failures import BackupFailed
from services.common.s3 import ObjectStore, is_missing

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

    from deploy.backup.folder import Folder

AT_ONCE = 8
CHUNK_BYTES = 2**20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """An object; `parts`: the sizes in bytes of what it was uploaded in, empty for a single PUT."""

    key: str
    size: int
    etag: str
    content_type: str
    metadata: dict[str, str] = field(default_factory=dict)
    parts: list[int] = field(default_factory=list)


def fetch(store: ObjectStore, folder: "Folder") -> list[Entry]:
    """Copy every object that is not in the folder already; what is deleted meanwhile is left out."""
    known = folder.known()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        entries = list(pool.map(lambda key: _fetch(store, folder, key, known.get(key)), store.keys_under("")))
    found = [entry for entry in entries if entry is not None]
    log.info("%d objects", len(found))
    return found


def _fetch(store: ObjectStore, folder: "Folder", key: str, known: Entry | None) -> Entry | None:
    try:
        head = store.client.head_object(Bucket=store.bucket, Key=key)
        if known is not None and (known.etag, known.size) == (_etag(head), head["ContentLength"]):
            return known
        path = folder.file_of(key, _etag(head))
        path.parent.mkdir(parents=True, exist_ok=True)
        body = store.client.get_object(Bucket=store.bucket, Key=key, IfMatch=head["ETag"])["Body"]
        with contextlib.closing(body), path.open("wb") as file:
            for chunk in body.iter_chunks(CHUNK_BYTES):
                file.write(chunk)
        entry = Entry(
            key=key,
            size=head["ContentLength"],
            etag=_etag(head),
            content_type=head.get("ContentType", "application/octet-stream"),
            metadata=head.get("Metadata", {}),
            parts=_part_sizes(store, key, _etag(head)),
        )
    except ClientError as error:
        if is_missing(error):
            return None
        raise
    if path.stat().st_size != entry.size:
        raise BackupFailed(f"{key} ended after {path.stat().st_size} of {entry.size} bytes; try again")
    return entry


def _etag(answer: Any) -> str:
    return str(answer["ETag"]).strip('"')


def _part_sizes(store: ObjectStore, key: str, etag: str) -> list[int]:
    """The ETag of a multipart upload depends on its parts, and ends with their number."""
    _, _, number = etag.partition("-")
    if not number:
        return []
    return [
        store.client.head_object(Bucket=store.bucket, Key=key, PartNumber=part)["ContentLength"]
        for part in range(1, int(number) + 1)
    ]


def store(target: ObjectStore, folder: "Folder", entries: list[Entry]) -> None:
    """Upload every object as it was. Raises BackupFailed for a file that is missing or damaged."""
    for entry in entries:
        path = folder.file_of(entry.key, entry.etag)
        if not path.is_file() or path.stat().st_size != entry.size:
            raise BackupFailed(f"the backup is damaged: {path} should hold {entry.size} bytes")
    target.ensure_bucket()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda entry: _store(target, folder.file_of(entry.key, entry.etag), entry), entries))
    log.info("%d objects", len(entries))


def _store(target: ObjectStore, path: Path, entry: Entry) -> None:
    place: dict[str, Any] = {"Bucket": target.bucket, "Key": entry.key}
    kind: dict[str, Any] = {"ContentType": entry.content_type, "Metadata": entry.metadata}
    with path.open("rb") as file:
        if not entry.parts:
            etag = _etag(target.client.put_object(**place, **kind, Body=file))
        else:
            upload = target.client.create_multipart_upload(**place, **kind)["UploadId"]
            tags: list[CompletedPartTypeDef] = []
            for number, size in enumerate(entry.parts, 1):
                part = target.client.upload_part(
                    **place, UploadId=upload, PartNumber=number, Body=file.read(size)
                )
                tags.append({"ETag": part["ETag"], "PartNumber": number})
            completed = target.client.complete_multipart_upload(
                **place, UploadId=upload, MultipartUpload={"Parts": tags}
            )
            etag = _etag(completed)
    if etag != entry.etag:
        raise BackupFailed(f"{entry.key} got another ETag: the backup is damaged, or this S3 makes others")
