"""What a training is about: data sets and prompts, in the several ways in which clients name them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from services.common.errors import BadRequest

MOST_CONCEPTS = 20
REPEATS_IN_NAME = re.compile(r"^(\d{1,4})_(.*)$")  # kohya's folders: 10_violet star
DATASET_KEY = re.compile(r"^(?:s3://[^/]+/)?dataset/([^/]+)(?:/.*)?$")


def flattened(config: Mapping[str, Any]) -> dict[str, Any]:
    """config_params without groups: clients nest settings as kohya does, and the worker reads them so."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flattened(value) if isinstance(value, Mapping) else {name: value}
    return found


def concepts_of(training: Mapping[str, Any], config: Mapping[str, Any], bucket: str) -> list[dict[str, Any]]:
    """The concepts of training_params and flattened config_params. Raises BadRequest when there is none.

    Each: `dataset`, `prompt`, `class_dataset`, `class_prompt`, `class_pictures`, `repeats`.
    """
    listed = config.get("concepts_list") or training.get("concepts_list")
    if listed:
        if not isinstance(listed, list) or not all(isinstance(one, Mapping) for one in listed):
            raise BadRequest("config_params.concepts_list must be a list of objects")
        if len(listed) > MOST_CONCEPTS:
            raise BadRequest(f"config_params.concepts_list has more than {MOST_CONCEPTS} concepts")
        places = _places(training, "data_tar_list"), _class_places(training, config)
        found = [_concept(one, config, places, number, bucket) for number, one in enumerate(listed)]
    else:
        found = [
            _concept(
                {"instance_data_dir": place},
                config,
                ([], _class_places(training, config)),
                0,
                bucket,
            )
            for place in _own_places(training, config)
        ]
    found = [one for one in found if one["dataset"]]
    if not found:
        raise BadRequest(
            "no data set is named: give training_params.dataset, data_tar_list or "
            "config_params.concepts_list[].instance_data_dir"
        )
    return found


def _own_places(training: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    for names, holder in (
        (("dataset", "dataset_name", "instance_data_dir"), training),
        (("instance_data_dir", "train_data_dir"), config),
    ):
        for name in names:
            if holder.get(name):
                return [_text(name, holder[name])]
    return _places(training, "data_tar_list")


def _class_places(training: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    for name in ("class_data_dir", "reg_data_dir"):
        if config.get(name):
            return [_text(name, config[name])]
    return _places(training, "class_data_tar_list")


def _places(holder: Mapping[str, Any], name: str) -> list[str]:
    value = holder.get(name) or []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not all(isinstance(one, str) for one in values):
        raise BadRequest(f"training_params.{name} must be a list of text")
    return list(values)


def _concept(
    one: Mapping[str, Any],
    config: Mapping[str, Any],
    places: tuple[list[str], list[str]],
    number: int,
    bucket: str,
) -> dict[str, Any]:
    own, others = ((listed[number] if number < len(listed) else "") for listed in places)
    place = _text("instance_data_dir", one.get("instance_data_dir") or own)
    class_place = _text("class_data_dir", one.get("class_data_dir") or others)
    prompt = one.get("instance_prompt") or config.get("instance_prompt") or ""
    class_prompt = one.get("class_prompt") or config.get("class_prompt") or ""
    count = (
        one.get("num_class_images_per") or one.get("num_class_images") or config.get("num_class_images") or 0
    )
    return {
        "dataset": dataset_named(place, bucket),
        "prompt": _text("instance_prompt", prompt),
        "class_dataset": dataset_named(class_place, bucket) if class_place else "",
        "class_prompt": _text("class_prompt", class_prompt),
        "class_pictures": _count(count),
        "repeats": _repeats(place),
    }


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4000:
        raise BadRequest(f"{name} must be text of at most 4000 characters")
    return value


def _count(value: Any) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError):
        raise BadRequest(f"num_class_images must be a whole number, not {str(value)[:40]!r}") from None
    if not 0 <= count <= 1000:
        raise BadRequest(f"num_class_images must be from 0 to 1000, not {count}")
    return count


def _repeats(place: str) -> int:
    match = REPEATS_IN_NAME.match(place.rstrip("/").rsplit("/", 1)[-1])
    return max(1, int(match[1])) if match else 1


def dataset_named(place: str, bucket: str) -> str:
    """The data set that a name or an S3 address names. Raises BadRequest for other places."""
    place = place.strip()
    if place.startswith("s3://") and not place.startswith(f"s3://{bucket}/dataset/"):
        raise BadRequest(f"{place[:100]} is no data set: only s3://{bucket}/dataset/NAME can be trained on")
    match = DATASET_KEY.match(place)
    if match:
        return unquote(match[1])
    if "/" in place.strip("/"):
        raise BadRequest(f"{place[:100]} is no data set: give its name")
    return place.strip("/")
