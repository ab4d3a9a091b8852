"""Which names files of trainings may have, and which id the checkpoint of work has."""

import re
import uuid

from services.common.errors import BadRequest

CHECKPOINTS = uuid.UUID("6d7c1f0e-55a5-4a6c-8f6a-0f6f6f1e9d55")
INPUT_NAME = re.compile(r"[^\W_][\w. -]{0,199}")


def check_input_name(name: str) -> None:
    """Raise BadRequest unless the name is safe in a key."""
    if not INPUT_NAME.fullmatch(name):
        raise BadRequest(
            f'filename "{name[:60]}" must have 1 to 200 letters, digits, spaces, "_", "-" and "."'
        )


def checkpoint_id_of(made_id: str) -> str:
    """The id of the checkpoint that is made for a training, merge or model: the same for every repeat."""
    return str(uuid.uuid5(CHECKPOINTS, made_id))
