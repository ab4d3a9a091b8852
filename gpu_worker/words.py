"""What a request's words ask for beside themselves: networks of the job's models, named in the prompt."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from gpu_worker.device import Device
from gpu_worker.embeddings import read_embedding
from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.hypernetworks import read_hypernetwork
from gpu_worker.jobs import ModelFile
from gpu_worker.lora_files import read_lora
from gpu_worker.networks import Networks, Use
from gpu_worker.prompt_tags import HYPERNETWORK, LORA, Tag, split_tags
from gpu_worker.tasks import TaskContext

TYPES = {LORA: "Lora", HYPERNETWORK: "hypernetworks"}
EMBEDDINGS = "embeddings"

Read = Callable[[StoredFile, str, Device], tuple[Any, int]]
READERS: dict[str, Read] = {
    TYPES[LORA]: read_lora,
    TYPES[HYPERNETWORK]: read_hypernetwork,
    EMBEDDINGS: read_embedding,
}


@dataclass(frozen=True, slots=True)
class Words:
    """Prompts without the tags of networks, the networks, and sentences about what has no effect."""

    prompt: str
    negative_prompt: str
    networks: Networks
    comments: tuple[str, ...] = ()


def fields_of(*passes: Networks) -> dict[str, object]:
    """What infotexts say of the networks of all passes, under the WebUI's names; loads them."""
    loras = {use.name: use.load().short_hash for networks in passes for use in networks.loras}
    embeddings = {use.name: use.load().short_hash for networks in passes for use in networks.embeddings}
    return {"Lora hashes": _hashes(loras), "TI hashes": _hashes(embeddings)}


def read_words(context: TaskContext, prompt: str, negative_prompt: str) -> Words:
    """Finds the networks that the prompt names among the job's models.

    As in the WebUI a tag in the negative prompt is plain text. Raises `RequestFault` for a name that is not
    among them.
    """
    text, tags, ignored = split_tags(prompt)
    comments = [f"{tag} in the prompt has no effect: there are lora, lyco and hypernet" for tag in ignored]
    if split_tags(negative_prompt)[1]:
        comments.append("networks named in the negative prompt have no effect: name them in the prompt")
    by_kind: dict[str, list[Use]] = {LORA: [], HYPERNETWORK: []}
    for tag in tags:
        by_kind[tag.kind].append(_use(context, tag))
    embeddings = [
        _embedding(context, file)
        for file in context.job.of_type(EMBEDDINGS)
        if _squashed(_stem(file)) in _squashed(text + "\n" + negative_prompt)
    ]
    networks = Networks(tuple(by_kind[LORA]), tuple(by_kind[HYPERNETWORK]), tuple(embeddings))
    return Words(text, negative_prompt, networks, tuple(comments))


def _use(context: TaskContext, tag: Tag) -> Use:
    model_type = TYPES[tag.kind]
    files = context.job.of_type(model_type)
    file = _named(context, tag.name, files)
    if file is None:
        raise RequestFault(
            f"<{tag.kind}:{tag.name[:80]}> in the prompt is not among the job's models.{model_type}: add the "
            f"file's name to models.{model_type}"
        )
    return Use(_stem(file), file.version, _loader(context, file), tag.unet, tag.text, tag.rank)


def _named(context: TaskContext, name: str, files: Sequence[ModelFile]) -> ModelFile | None:
    """The file of a name, with or without its ending; a LoRA also goes by what its training called it."""
    for alike in (str, str.casefold):
        for file in files:
            if alike(name) in (alike(file.name), alike(_stem(file))):
                return file
    loras = (file for file in files if file.type == TYPES[LORA])
    return next((file for file in loras if _loader(context, file)().alias == name), None)


def _embedding(context: TaskContext, file: ModelFile) -> Use:
    return Use(_stem(file), file.version, _loader(context, file))


def _loader(context: TaskContext, file: ModelFile) -> Callable[[], Any]:
    return partial(_load, context, file)


def _load(context: TaskContext, file: ModelFile) -> Any:
    read, device = READERS[file.type], context.memory.device

    def load(stored: StoredFile) -> tuple[Any, int]:
        return read(stored, _stem(file), device)

    return context.memory.other(file.type, file, context.open_file, load)


def _hashes(by_name: dict[str, str]) -> str | None:
    return ", ".join(f"{name}: {hash_}" for name, hash_ in by_name.items()) or None


def _stem(file: ModelFile) -> str:
    return PurePosixPath(file.name).stem


def _squashed(text: str) -> str:
    """A text as far as it decides about tokens: their case and the white space between them do not."""
    return re.sub(r"\s+", "", text).casefold()
