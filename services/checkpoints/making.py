"""Checkpoints whose file the platform makes itself: results of trainings and merges, and models.

The file's maker reserves the name, and hands over an object that is whole; until then it is Initial.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from services.checkpoints.checkpoint import ACTIVE, INITIAL, MAKING, Checkpoint, File, Viewer
from services.checkpoints.creation import create_once, new_import, new_upload, own_params
from services.checkpoints.errors import CheckpointNotFound
from services.checkpoints.filenames import check_names
from services.checkpoints.inspection import inspected
from services.checkpoints.leases import Held, exclusive
from services.checkpoints.presentation import shown, shown_with_urls
from services.checkpoints.safetensors_header import InvalidHeader
from services.checkpoints.sealing import seal
from services.checkpoints.storage import folder, key_of
from services.checkpoints.wiring import Parts
from services.common.identity import USER_AUDIENCE, Caller
from services.common.times import now

log = logging.getLogger(__name__)


def reserve(parts: Parts, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """An Initial checkpoint of that id; the same again for a repeat. Raises NameTaken, UnusableFileName."""
    found = parts.repository.get(wanted["id"])
    if found is None:
        check_names([wanted["filename"]], pickles=False)
        moment = now()
        file = File(name=wanted["filename"], key=key_of(wanted["type"], wanted["id"], wanted["filename"]))
        found = Checkpoint(
            id=wanted["id"],
            type=wanted["type"],
            status=INITIAL,
            stage=MAKING,
            creator=wanted["creator"],
            allowed=wanted["allowed"],
            files=[file],
            params=own_params(wanted["params"]),
            created=moment,
            touched=moment,
        )
        parts.repository.create(found)
    return shown(found, parts.storage)


def adopt(parts: Parts, checkpoint_id: str, key: str, params: Mapping[str, Any]) -> str | None:
    """Copy the object to the checkpoint's own key, check it, make the checkpoint Active; why not, else None.

    May be repeated after any death; a checkpoint that is Active already stays as it is.
    """
    with exclusive(parts.repository, checkpoint_id, parts.config.lease_seconds) as held:
        if held is None:
            current = parts.repository.get(checkpoint_id)
            settled = current is not None and current.status not in {INITIAL, "Deleting"}
            return None if settled else "the checkpoint was deleted"
        if held.checkpoint.stage != MAKING:
            return held.checkpoint.error or "the checkpoint is not being made"
        try:
            file = _taken_over(parts, held, key)
        except InvalidHeader as fault:
            return _given_up(parts, held, str(fault))
        if file is None:
            return _given_up(parts, held, "the file that was made is not in S3")
        if params:
            parts.repository.edit(
                checkpoint_id, {"params": own_params(held.checkpoint.params | dict(params))}
            )
        if parts.repository.activate(checkpoint_id, held.token, [file]) is None:
            return "the checkpoint was deleted"
        log.info("checkpoint was made", extra={"checkpoint_id": checkpoint_id})
        return None


def _taken_over(parts: Parts, held: Held, key: str) -> File | None:
    file, source = held.checkpoint.files[0], parts.storage.find(key)
    if source is None:
        return None
    parts.storage.copy(key, file.key, source.size)
    stored = parts.storage.find(file.key)
    return replace(inspected(parts.storage, file, stored), size=stored.size) if stored else None


def _given_up(parts: Parts, held: Held, reason: str) -> str:
    parts.storage.purge(folder(held.checkpoint.type, held.checkpoint.id))
    parts.repository.fail(held.checkpoint.id, held.token, reason)
    return reason


def give_up(parts: Parts, checkpoint_id: str, reason: str) -> None:
    """Nobody is going to make the checkpoint: its name is free, the reason is shown on it."""
    with exclusive(parts.repository, checkpoint_id, parts.config.lease_seconds) as held:
        if held is not None and held.checkpoint.stage == MAKING:
            _given_up(parts, held, reason)


def begin_for(parts: Parts, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint that a user uploads or imports as a model; `checkpoint` and `s3PresignUrl`.

    A repeat for the same model finds the first. A token goes on to the import, and into no record.
    """
    key = f"model {wanted['id']}" if wanted["id"] else None
    caller = Caller(USER_AUDIENCE, wanted["username"], tuple(wanted["roles"]))
    body = {
        "checkpoint_type": "Stable-diffusion",
        "params": wanted["params"],
        "allowed_roles_or_users": [],
    }
    if wanted["urls"]:
        body["urls"] = wanted["urls"]
        made = create_once(parts.repository, new_import(parts, caller, body, key))
        secret = parts.config.internal.service_secret
        parts.background.fetch(made.id, seal(wanted["token"], secret) if wanted["token"] else "")
        return {"checkpoint": shown(made, parts.storage), "s3PresignUrl": {}}
    files = body | {"filenames": wanted["filenames"]}
    made = create_once(parts.repository, new_upload(parts, caller, files, key))
    return shown_with_urls(parts.uploads.begin(made.id), parts.storage, parts.uploads)


def states(parts: Parts, checkpoint_ids: Sequence[str], viewer: Viewer) -> dict[str, dict[str, Any]]:
    """`status`, `stage`, `error`, `names`, `type` and `s3_location` of those that the viewer sees, by id."""
    found = {}
    for checkpoint_id in checkpoint_ids:
        one = parts.repository.find_visible(checkpoint_id, viewer)
        if one is not None:
            found[one.id] = {
                "status": one.status,
                "stage": one.stage,
                "error": one.error,
                "names": one.names,
                "type": one.type,
                "s3_location": parts.storage.location(one.type, one.id),
            }
    return found


def complete_for(parts: Parts, checkpoint_id: str, tags: Mapping[str, Any], viewer: Viewer) -> None:
    """Complete the uploads of a user's own model."""
    checkpoint = parts.repository.find_visible(checkpoint_id, viewer)
    if checkpoint is None or not viewer.owns(checkpoint):
        raise CheckpointNotFound(checkpoint_id)
    if checkpoint.status != ACTIVE:
        parts.uploads.complete(checkpoint_id, tags)
