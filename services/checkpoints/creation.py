"""Creates checkpoints: whose they are, who may use them, and the same request only once."""

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from services.checkpoints.checkpoint import IMPORTING, INITIAL, UPLOADING, Checkpoint, File
from services.checkpoints.config import CONVERT
from services.checkpoints.errors import ActsForAnother, KeyReused, NameTaken
from services.checkpoints.filenames import check_names
from services.checkpoints.neighbours import Neighbours
from services.checkpoints.repository import Repository
from services.checkpoints.storage import key_of
from services.checkpoints.wiring import Parts
from services.common.errors import BadRequest
from services.common.guard import RefusedAddress, check_url
from services.common.identity import Caller
from services.common.times import now

KEY_LIFE = timedelta(hours=24)
LONGEST_KEY = 255
LARGEST_PARAMS = 65_536  # bytes of JSON
MOST_PARTS = 50_000  # of all files of one request: their URLs make an answer of about 20 MB
# What this service says in params.
OURS = frozenset(
    {
        *("creator", "created", "multipart_upload", "error", "pending", "progress"),
        *("architecture", "metadata", "warning"),
    }
)


def owner_named_by(
    neighbours: Neighbours, caller: Caller, params: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """The user that `params.creator` names, by default the caller, and their roles.

    Raises ActsForAnother without user:all, UnknownUser when there is no such user.
    """
    creator = params.get("creator") or caller.name
    if creator == caller.name:
        return caller.name, list(caller.roles)
    if not caller.may("user:all"):
        raise ActsForAnother(creator)
    return str(creator), neighbours.roles_of(creator)


def own_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """What the client may say in params; the rest is this service's. Raises BadRequest."""
    kept = {name: value for name, value in params.items() if name not in OURS}
    if (size := len(json.dumps(kept))) > LARGEST_PARAMS:
        raise BadRequest(f"params is too large ({size} bytes, maximum {LARGEST_PARAMS})")
    return kept


def new_upload(parts: Parts, caller: Caller, body: Mapping[str, Any], key: str | None = None) -> Checkpoint:
    """A checkpoint, not yet stored, whose files the client is going to upload."""
    files = body["filenames"]
    check_names((file["filename"] for file in files), pickles=parts.config.pickles == CONVERT)
    if sum(file["parts_number"] for file in files) > MOST_PARTS:
        raise BadRequest(f"the files of one request have at most {MOST_PARTS} parts together")
    checkpoint_id = str(uuid.uuid4())
    return _new(
        parts,
        caller,
        body,
        key,
        checkpoint_id,
        UPLOADING,
        [
            File(
                name=file["filename"],
                key=key_of(body["checkpoint_type"], checkpoint_id, file["filename"]),
                parts_number=file["parts_number"],
                sha256=file["sha256"] and file["sha256"].lower(),
            )
            for file in files
        ],
    )


def new_import(parts: Parts, caller: Caller, body: Mapping[str, Any], key: str | None = None) -> Checkpoint:
    """A checkpoint, not yet stored, whose files are to be fetched; their names are learned on the way."""
    for number, url in enumerate(body["urls"], start=1):
        try:
            check_url(url)
        except RefusedAddress as reason:
            raise BadRequest(f"URL {number} cannot be imported: {reason}") from None
    if len(set(body["urls"])) != len(body["urls"]):
        raise BadRequest("a URL is named twice in one request")
    files = [File(name="", key="", url=url) for url in body["urls"]]
    return _new(parts, caller, body, key, str(uuid.uuid4()), IMPORTING, files)


def _new(
    parts: Parts,
    caller: Caller,
    body: Mapping[str, Any],
    key: str | None,
    checkpoint_id: str,
    stage: str,
    files: list[File],
) -> Checkpoint:
    (owner, roles), moment = owner_named_by(parts.neighbours, caller, body["params"]), now()
    allowed = body["allowed_roles_or_users"]
    return Checkpoint(
        id=checkpoint_id,
        type=body["checkpoint_type"],
        status=INITIAL,
        stage=stage,
        creator=owner,
        allowed=roles if allowed is None else allowed,
        files=files,
        params=own_params(body["params"]),
        created=moment,
        touched=moment,
        request_key=_request_key(caller, body, key),
    )


def _request_key(caller: Caller, body: Mapping[str, Any], key: str | None) -> dict[str, str] | None:
    if not key:
        return None
    if len(key) > LONGEST_KEY:
        raise BadRequest(f"an Idempotency-Key has at most {LONGEST_KEY} characters")
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return {"caller": caller.name, "key": key, "body": digest}


def create_once(repository: Repository, checkpoint: Checkpoint) -> Checkpoint:
    """Store the checkpoint, or find the one that the same request has created before.

    Raises NameTaken, and KeyReused when the Idempotency-Key came with another body.
    """
    earlier = _earlier(repository, checkpoint)
    if earlier is not None:
        return earlier
    try:
        repository.create(checkpoint)
    except (NameTaken, KeyReused):
        earlier = _earlier(repository, checkpoint)  # the same request, at the same moment
        if earlier is None:
            raise
        return earlier
    return checkpoint


def _earlier(repository: Repository, checkpoint: Checkpoint) -> Checkpoint | None:
    key = checkpoint.request_key
    if key is None:
        return None
    found = repository.find_request(key["caller"], key["key"], now() - KEY_LIFE)
    if found is not None and found.request_key and found.request_key["body"] != key["body"]:
        raise KeyReused
    return found
