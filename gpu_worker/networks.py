"""The extra networks that a batch uses: LoRAs, hypernetworks and embeddings, with their weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Use:
    """One network: `version` names its file's content, `load` gives it from memory, or from its file.

    A LoRA weighs `unet` in the UNet and `text` in the text encoders, and uses its first `rank` dimensions
    alone when that is not 0; a hypernetwork weighs `unet`.
    """

    name: str
    version: str
    load: Callable[[], Any] = field(compare=False, repr=False)
    unet: float = 1.0
    text: float = 1.0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Networks:
    """All of them; equal ones are the same files with the same weights: their pictures may be batched."""

    loras: tuple[Use, ...] = ()
    hypernetworks: tuple[Use, ...] = ()
    embeddings: tuple[Use, ...] = ()

    def __iter__(self) -> Iterator[Use]:
        yield from (*self.loras, *self.hypernetworks, *self.embeddings)

    @property
    def text_key(self) -> tuple[object, ...]:
        """What a text's encoding depends on."""
        loras = tuple((use.version, use.text, use.rank) for use in self.loras if use.text)
        return loras, tuple((use.name, use.version) for use in self.embeddings)


NO_NETWORKS = Networks()
