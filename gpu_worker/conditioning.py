"""What the UNet is told about each picture of a batch at each step, row by row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True)
class Text:
    """One encoded prompt: `embeddings` (tokens, width) and SDXL's `pooled` (width)."""

    embeddings: torch.Tensor
    pooled: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A prompt that pulls with `weight` (``AND`` joins several) and may change from step to step.

    `schedule` holds texts with the number of steps after which each ends, in rising order.
    """

    schedule: tuple[tuple[int, Text], ...]
    weight: float = 1.0

    @classmethod
    def constant(cls, text: Text, weight: float = 1.0) -> "Part":
        """A prompt that stays the same."""
        return cls(((1, text),), weight)

    def at(self, step: int) -> Text:
        """The text of a step, counted from 0; the last one stays to the end."""
        return next((text for end, text in self.schedule if step < end), self.schedule[-1][1])


@dataclass(frozen=True, slots=True)
class PictureConditioning:
    """What pulls one picture and what pushes it; `sizes` are SDXL's time ids, of both."""

    positive: tuple[Part, ...]
    negative: Part
    sizes: torch.Tensor | None = None
    negative_sizes: torch.Tensor | None = None

    @property
    def pull(self) -> float:
        """The sum of the weights that lead away from the negative prompt."""
        return sum(part.weight for part in self.positive)


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts of equal length that pass through the UNet together.

    Row i belongs to the batch's picture `pictures[i]`; `negative[i]` is 1 where the guidance leads away from
    it, else 0. The guided prediction is the sum of all rows times (`negative` + scale x `weights`), so the
    weight of a negative row is minus the sum of its picture's others. `embeddings` (rows, tokens, width),
    `pooled` (rows, width), `sizes` (rows, 5 or 6).
    """

    embeddings: torch.Tensor
    pictures: torch.Tensor
    weights: torch.Tensor
    negative: torch.Tensor
    pooled: torch.Tensor | None = None
    sizes: torch.Tensor | None = None

    @property
    def added(self) -> dict[str, torch.Tensor] | None:
        """SDXL's additional inputs under diffusers' names."""
        if self.pooled is None or self.sizes is None:
            return None
        return {"text_embeds": self.pooled, "time_ids": self.sizes}


@dataclass(slots=True)
class Conditioning:
    """A batch's conditioning; the rows of a step are made once and kept while the texts stay the same."""

    pictures: Sequence[PictureConditioning]
    _kept: dict[tuple[int, ...], list[Rows]] = field(default_factory=dict)

    def at(self, step: int, with_negative: bool = True) -> list[Rows]:
        """The rows of a step, grouped by length, because a text's padding would change its picture."""
        rows = list(self._rows(step, with_negative))
        key = tuple(id(text) for _, text, *_ in rows)
        if key not in self._kept:
            lengths = dict.fromkeys(text.embeddings.shape[0] for _, text, *_ in rows)
            groups = [[row for row in rows if row[1].embeddings.shape[0] == length] for length in lengths]
            self._kept = {key: [_stacked(group) for group in groups]}
        return self._kept[key]

    def needs_negative(self, scale: float) -> bool:
        """Whether negative prompts have a share in the prediction: at scale 1 they usually have none."""
        return any(scale * picture.pull != 1 for picture in self.pictures)

    def _rows(self, step: int, with_negative: bool) -> Iterator["_Row"]:
        if with_negative:
            for index, picture in enumerate(self.pictures):
                yield index, picture.negative.at(step), -picture.pull, 1.0, picture.negative_sizes
        for index, picture in enumerate(self.pictures):
            for part in picture.positive:
                yield index, part.at(step), part.weight, 0.0, picture.sizes


_Row = tuple[int, Text, float, float, torch.Tensor | None]


def _stacked(rows: Sequence[_Row]) -> Rows:
    pictures, texts, weights, negative, sizes = zip(*rows, strict=True)
    embeddings = torch.stack([text.embeddings for text in texts])
    device = embeddings.device
    has_sizes = sizes[0] is not None
    return Rows(
        embeddings=embeddings,
        pictures=torch.tensor(pictures, device=device),
        weights=torch.tensor(weights, device=device),
        negative=torch.tensor(negative, device=device),
        pooled=torch.stack([text.pooled for text in texts]) if texts[0].pooled is not None else None,
        sizes=torch.stack(list(sizes)) if has_sizes else None,
    )
