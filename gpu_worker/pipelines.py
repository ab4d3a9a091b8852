"""Keeps loaded models on the device, in RAM those that left a GPU; those unused for longest leave first."""

import gc
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from gpu_worker import metrics
from gpu_worker.architecture import Family
from gpu_worker.device import Device
from gpu_worker.files import StoredFile
from gpu_worker.jobs import ModelFile
from gpu_worker.loading import Pipeline, Vae, load_checkpoint, load_vae
from gpu_worker.loras import AppliedLoras
from gpu_worker.single_file import Description, refuse_refiner
from gpu_worker.text_encoding import TextCache

OpenFile = Callable[[ModelFile], Any]
Loaded = TypeVar("Loaded")


@dataclass(slots=True)
class LoadedCheckpoint:
    """A pipeline in memory, its description and the short hash of its file.

    `texts` are those it has encoded, `loras` what its weights hold beside the file's.
    """

    name: str
    pipeline: Pipeline
    description: Description
    short_hash: str
    texts: TextCache = field(default_factory=TextCache)
    loras: AppliedLoras = field(default_factory=AppliedLoras)

    @property
    def family(self) -> Family:
        """The checkpoint's architecture."""
        return self.description.family

    def forget_additions(self) -> None:
        """Leaves nothing but what the file holds: LoRAs and encoded texts keep memory of the device."""
        self.loras.apply(self.pipeline, self.name, ())
        self.texts = TextCache()


@dataclass(slots=True)
class LoadedVae:
    """A VAE in memory that a request chose by name."""

    name: str
    model: Vae
    short_hash: str


@dataclass(slots=True)
class _Entry:
    file: ModelFile
    value: Any
    size: int


class ModelMemory:
    """An LRU of loaded models, and a second one in RAM of those that had to leave a GPU.

    A model comes back from RAM in a fraction of the time that reading its file takes.
    Models are loaded and used by one thread; `loaded_names` and `warm_ids` may be read from others.
    """

    def __init__(
        self,
        device: Device,
        limit_bytes: int | None,
        on_change: Callable[[], None] = lambda: None,
        ram_bytes: int | None = None,
    ) -> None:
        self.device = device
        self._limit = device.default_cache_bytes if limit_bytes is None else limit_bytes
        self._ram_limit = device.default_ram_bytes if ram_bytes is None else ram_bytes
        self._on_change = on_change
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._resting: OrderedDict[str, _Entry] = OrderedDict()
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def loaded_names(self) -> list[str]:
        """File names in memory, the most recently used last."""
        with self._lock:
            return [entry.file.name for entry in (*self._resting.values(), *self._entries.values())]

    @property
    def warm_ids(self) -> list[str]:
        """Ids of the checkpoints in memory."""
        with self._lock:
            return [entry.file.id for entry in (*self._resting.values(), *self._entries.values())]

    def refiner(self, file: ModelFile, open_file: OpenFile) -> LoadedCheckpoint:
        """A checkpoint that goes on with what another began: SDXL's refiner can do nothing else."""
        return self.checkpoint(file, open_file, may_refine=True)

    def checkpoint(self, file: ModelFile, open_file: OpenFile, may_refine: bool = False) -> LoadedCheckpoint:
        """The pipeline of a checkpoint; `open_file(file)` is a context manager that gives a `StoredFile`.

        Raises `RequestFault` for SDXL's refiner unless it `may_refine`.
        """

        def load() -> tuple[LoadedCheckpoint, int]:
            with open_file(file) as stored:
                pipeline, description = load_checkpoint(
                    stored.path, file.name, self.device, self._make_room, may_refine=may_refine
                )
                loaded = LoadedCheckpoint(file.name, pipeline, description, stored.short_hash)
            models = (m for m in pipeline.components.values() if isinstance(m, torch.nn.Module))
            return loaded, sum(_bytes_of(model) for model in models)

        found: LoadedCheckpoint = self._get(file.version, file, load)
        if not may_refine:
            refuse_refiner(found.description)
        return found

    def vae(self, file: ModelFile, family: Family, open_file: OpenFile) -> LoadedVae:
        """A VAE for checkpoints of `family`."""

        def load() -> tuple[LoadedVae, int]:
            with open_file(file) as stored:
                model = load_vae(stored.path, file.name, family, self.device)
                return LoadedVae(file.name, model, stored.short_hash), _bytes_of(model)

        found: LoadedVae = self._get(f"{file.version}:{family.name}", file, load)
        return found

    def other(
        self,
        kind: str,
        file: ModelFile,
        open_file: OpenFile,
        load: Callable[[StoredFile], tuple[Loaded, int]],
    ) -> Loaded:
        """Any other model: `load` gives it with its bytes; `kind` tells ways to load one file apart."""

        def load_opened() -> tuple[Loaded, int]:
            with open_file(file) as stored:
                return load(stored)

        found: Loaded = self._get(f"{file.version}:{kind}", file, load_opened)
        return found

    @contextmanager
    def holding(self, files: Iterable[ModelFile]) -> Iterator[None]:
        """Inside, the models of `files` stay where they are, whatever else is loaded meanwhile."""
        versions = [file.version for file in files]
        with self._lock:
            self._held.update(versions)
        try:
            yield
        finally:
            with self._lock:
                self._held.subtract(versions)
                self._held += Counter()  # forgets those that nobody holds

    def drop_all(self) -> None:
        """Empties the memory."""
        with self._lock:
            self._entries.clear()
            self._resting.clear()
        self._collect()
        self._on_change()

    def _get(self, key: str, file: ModelFile, load: Callable[[], tuple[Any, int]]) -> Any:
        with self._lock:
            resting = self._resting.pop(key, None)
            metrics.looked_up("memory", hit=key in self._entries or resting is not None)
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key].value
        if resting is not None:
            self._make_room(resting.size)
            value, size = resting.value, resting.size
            _move(value, self.device.torch_device)
        else:
            value, size = load()
        with self._lock:
            self._entries[key] = _Entry(file, value, size)
        self._make_room(0, keep=key)
        self._on_change()
        return value

    def _make_room(self, needed: int, keep: str | None = None) -> None:
        """Sends the oldest models off until `needed` more bytes fit; a single model may exceed the limit."""
        leaving = {}
        with self._lock:
            for key in list(self._entries):
                if sum(entry.size for entry in self._entries.values()) + needed <= self._limit:
                    break
                if key != keep and self._held[self._entries[key].file.version] <= 0:
                    leaving[key] = self._entries.pop(key)
        for key, entry in leaving.items():
            self._rest(key, entry)
        if leaving:
            del entry  # the last name of a model that may be forgotten
            leaving.clear()
            self._collect()

    def _rest(self, key: str, entry: _Entry) -> None:
        """Keeps a model in RAM where it can be moved there and back; the oldest there are forgotten."""
        if entry.size > self._ram_limit or not _move(entry.value, torch.device("cpu")):
            return
        with self._lock:
            self._resting[key] = entry
            while sum(one.size for one in self._resting.values()) > self._ram_limit:
                self._resting.popitem(last=False)

    def _collect(self) -> None:
        gc.collect()
        if self.device.is_cuda:
            torch.cuda.empty_cache()


def _move(value: Any, target: torch.device) -> bool:
    """Moves a loaded model; False for what has no weights of PyTorch's."""
    if isinstance(value, LoadedCheckpoint):
        value.forget_additions()
        value.pipeline.to(target)
    elif isinstance(value, LoadedVae):
        value.model.to(target)
    elif isinstance(value, torch.nn.Module):
        value.to(target)
    else:
        return False
    return True


def _bytes_of(model: torch.nn.Module) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
