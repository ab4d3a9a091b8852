"""Checkpoints as clients see them."""

from typing import Any

from services.checkpoints.checkpoint import INITIAL, UPLOADING, Checkpoint
from services.checkpoints.inspection import findings
from services.checkpoints.storage import CheckpointStorage
from services.checkpoints.uploads import Arrived, Uploads
from services.common.times import as_epoch, as_text


def shown(checkpoint: Checkpoint, storage: CheckpointStorage) -> dict[str, Any]:
    """The members of CheckpointShape."""
    location = storage.location(checkpoint.type, checkpoint.id)
    return {
        "id": checkpoint.id,
        "type": checkpoint.type,
        "status": checkpoint.status,
        "s3_location": location,
        "s3Location": location,
        "name": checkpoint.names,
        "created": as_epoch(checkpoint.created),
        "params": checkpoint.params | _own_params(checkpoint, storage.bucket),
        "allowed_roles_or_users": checkpoint.allowed,
    }


def _own_params(checkpoint: Checkpoint, bucket: str) -> dict[str, Any]:
    params: dict[str, Any] = {"creator": checkpoint.creator, "created": as_text(checkpoint.created)}
    params |= findings(checkpoint)
    if checkpoint.error:
        params["error"] = checkpoint.error
    if checkpoint.progress and checkpoint.status == INITIAL:
        params["progress"] = checkpoint.progress
    if checkpoint.move:
        params["pending"] = checkpoint.move
    if checkpoint.status == INITIAL and checkpoint.stage == UPLOADING:
        params["multipart_upload"] = {
            file.name: {"upload_id": file.upload_id, "bucket": bucket, "key": file.key}
            for file in checkpoint.files
        }
    return params


def shown_with_urls(checkpoint: Checkpoint, storage: CheckpointStorage, uploads: Uploads) -> dict[str, Any]:
    """The members of CreatedCheckpoint."""
    uploading = checkpoint.status == INITIAL and checkpoint.stage == UPLOADING
    urls = {file.name: uploads.part_urls(file) for file in checkpoint.files} if uploading else {}
    return {"checkpoint": shown(checkpoint, storage), "s3PresignUrl": urls}


def shown_upload(arrived: Arrived) -> dict[str, Any]:
    """The members of UploadShape."""
    return {
        "filename": arrived.file.name,
        "upload_id": None if arrived.whole else arrived.file.upload_id,
        "parts_number": arrived.file.parts_number,
        "complete": arrived.whole,
        "parts": [
            {"PartNumber": part.number, "ETag": f'"{part.etag}"', "Size": part.size} for part in arrived.parts
        ],
        "missing": [
            {"PartNumber": number, "url": url}
            for number, url in zip(arrived.missing, arrived.urls, strict=True)
        ],
    }
