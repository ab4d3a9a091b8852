"""Which names files of trainings may have."""

import re

from services.common.errors import BadRequest

INPUT_NAME = re.compile(r"[^\W_][\w. -]{0,199}")


def check_input_name(name: str) -> None:
    """Raise BadRequest unless the name is safe in a key."""
    if not INPUT_NAME.fullmatch(name):
        raise BadRequest(
            f'filename "{name[:60]}" must have 1 to 200 letters, digits, spaces, "_", "-" and "."'
        )
