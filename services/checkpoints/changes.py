"""What PUT /checkpoints/{id} may change, and in which state."""

from collections.abc import Mapping
from typing import Any

from services.checkpoints.checkpoint import ACTIVE, DISABLED, INITIAL, Checkpoint
from services.checkpoints.creation import own_params, owner_named_by
from services.checkpoints.errors import CheckpointNotFound, NoTags, WrongState
from services.checkpoints.wiring import Parts
from services.common.errors import BadRequest
from services.common.identity import Caller

CHANGES = ("status", "name", "checkpoint_type", "params", "allowed_roles_or_users")


def apply_changes(
    parts: Parts, caller: Caller, checkpoint: Checkpoint, body: Mapping[str, Any]
) -> Checkpoint:
    """Apply a ChangedCheckpoint; the edits come last, when nothing can be refused any more."""
    wanted = [name for name in CHANGES if body.get(name) is not None]
    if not wanted and not body["multi_parts_tags"]:
        raise BadRequest(f"nothing to change: give one of {', '.join(CHANGES)}")
    edits = _edits(parts, caller, checkpoint, body)
    if "status" in wanted or body["multi_parts_tags"]:
        checkpoint = _change_status(
            parts, checkpoint, body.get("status", ACTIVE), body["multi_parts_tags"] or {}
        )
    if body.get("name") or body.get("checkpoint_type"):
        checkpoint = parts.moves.begin(checkpoint, body.get("name"), body.get("checkpoint_type"))
    if edits:
        edited = parts.repository.edit(checkpoint.id, edits)
        if edited is None:
            raise CheckpointNotFound(checkpoint.id)
        checkpoint = edited
    return checkpoint


def _edits(parts: Parts, caller: Caller, checkpoint: Checkpoint, body: Mapping[str, Any]) -> dict[str, Any]:
    edits: dict[str, Any] = {}
    params = body.get("params")
    if params is not None:
        if params.get("creator", checkpoint.creator) != checkpoint.creator:
            edits["creator"], _ = owner_named_by(parts.neighbours, caller, params)
        edits["params"] = own_params(checkpoint.params | params)
    if body["allowed_roles_or_users"] is not None:
        edits["allowed"] = body["allowed_roles_or_users"]
    return edits


def _change_status(parts: Parts, checkpoint: Checkpoint, wanted: str, tags: Mapping[str, Any]) -> Checkpoint:
    if wanted == DISABLED:
        return _switch(parts, checkpoint, ACTIVE, DISABLED)
    if checkpoint.status == INITIAL:
        if not tags:
            raise NoTags
        return parts.uploads.complete(checkpoint.id, tags)
    return _switch(parts, checkpoint, DISABLED, ACTIVE)


def _switch(parts: Parts, checkpoint: Checkpoint, old: str, new: str) -> Checkpoint:
    changed = parts.repository.change_status(checkpoint.id, old, new)
    if changed is not None:
        return changed
    current = parts.repository.get(checkpoint.id)
    if current is None or current.status not in {INITIAL, ACTIVE, DISABLED}:
        raise CheckpointNotFound(checkpoint.id)
    if current.status != new:
        raise WrongState(
            f"checkpoint {checkpoint.id} is {current.status}, only one that is {old} can become {new}"
        )
    return current
