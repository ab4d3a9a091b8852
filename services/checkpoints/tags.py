"""Compares the parts that a client names with the parts that S3 holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.checkpoints.checkpoint import Checkpoint, File
from services.checkpoints.errors import NoTags, WrongParts
from services.checkpoints.storage import Part, Parts

Tags = Mapping[str, Sequence[Mapping[str, Any]]]  # file name -> [{"ETag": text, "PartNumber": number}]


def check_files(checkpoint: Checkpoint, tags: Tags) -> None:
    """Raise when the tags are not those of the checkpoint's files."""
    if not tags:
        raise NoTags
    for name in tags:
        if name not in checkpoint.names:
            raise WrongParts(f"multi_parts_tags names {name}, which is no file of checkpoint {checkpoint.id}")
    for file in checkpoint.files:
        if not file.complete and not tags.get(file.name):
            raise WrongParts(f"multi_parts_tags has no parts of {file.name}")


def chosen_parts(file: File, tags: Sequence[Mapping[str, Any]], arrived: Parts) -> list[Part]:
    """The parts of a file, in order, when each is named once and with the ETag that S3 holds.

    Raises WrongParts that says which part is missing, unknown, repeated or different.
    """
    named: dict[int, str] = {}
    for tag in tags:
        number = tag["PartNumber"]
        if number in named:
            raise WrongParts(f"part {number} of {file.name} is named twice")
        if number > file.parts_number:
            raise WrongParts(
                f"part {number} of {file.name} is one too many: it was begun with {file.parts_number}"
            )
        named[number] = tag["ETag"].strip().removeprefix("W/").strip('"')
    chosen = [
        _chosen_part(file, number, named.get(number), arrived.get(number, []))
        for number in range(1, file.parts_number + 1)
    ]
    beyond = [number for number in arrived if number > file.parts_number]
    if beyond:
        raise WrongParts(
            f"part {min(beyond)} of {file.name} was uploaded, but the file was begun with {file.parts_number}"
        )
    return chosen


def _chosen_part(file: File, number: int, named: str | None, arrived: Sequence[Part]) -> Part:
    if named is None:
        raise WrongParts(f"part {number} of {file.name} is missing in multi_parts_tags")
    if not arrived:
        raise WrongParts(f"part {number} of {file.name} was not uploaded")
    for part in arrived:
        if part.etag == named:
            return part
    raise WrongParts(f"part {number} of {file.name} has the ETag {arrived[-1].etag}, not {named[:80]}")
