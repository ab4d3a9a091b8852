"""Training data as tensors: painted pictures and tokenised captions with filler words."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from house import shapes
from house.architecture import END_TOKEN, MAX_TOKENS, START_TOKEN, load_tokenizer
from house.shapes import Combination

PLAIN_SHARE = 0.22  # of all pictures: grey background, which a caption seldom names
COLOUR_NOISE = 0.03
_PALETTE = torch.tensor([shapes.PALETTE[name] for name in shapes.BACKGROUND_NAMES]) / 127.5 - 1


class Pictures:
    """A bank of random masks, painted afresh for each batch; values run from -1 to 1."""

    def __init__(self, count: int, seed: int) -> None:
        rng = random.Random(seed)
        self._masks = {shape: self._draw(shape, count // len(shapes.SHAPES), rng) for shape in shapes.SHAPES}

    @staticmethod
    def _draw(shape: str, count: int, rng: random.Random) -> Tensor:
        return torch.stack([torch.tensor(shapes.random_mask(shape, rng)) for _ in range(count)])

    def paint(self, subjects: Sequence[Combination], rng: random.Random) -> Tensor:
        """Pictures ``(n, 3, 64, 64)`` of the subjects, their colours varied a little."""
        chosen = [self._masks[subject.shape] for subject in subjects]
        masks = torch.stack([bank[rng.randrange(len(bank))] for bank in chosen]).float()[:, None] / 255
        front = _PALETTE[[shapes.BACKGROUND_NAMES.index(subject.foreground) for subject in subjects]]
        back = _PALETTE[[shapes.BACKGROUND_NAMES.index(subject.background) for subject in subjects]]
        front, back = (colour + COLOUR_NOISE * torch.randn(colour.shape) for colour in (front, back))
        return (back[:, :, None, None] * (1 - masks) + front[:, :, None, None] * masks).clamp(-1, 1)


def draw_subjects(count: int, rng: random.Random) -> list[Combination]:
    """Random subjects for training; held-out combinations never occur."""
    return [rng.choice(shapes.PLAIN if rng.random() < PLAIN_SHARE else shapes.TRAINING) for _ in range(count)]


class Captioner:
    """Turns subjects into token ids, often among filler words which the model must learn to ignore."""

    def __init__(self) -> None:
        self._tokenizer = load_tokenizer()
        self._cache: dict[str, list[int]] = {}
        self.known_ids = self._collect_known_ids()
        self._unknown_ids = sorted(set(range(START_TOKEN)) - self.known_ids)

    def _ids(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self._tokenizer(text).input_ids[1:-1]
        return self._cache[text]

    def _collect_known_ids(self) -> set[int]:
        # Only these words get a trained embedding; every other one stays zero, so that no word can surprise.
        rng = random.Random(0)
        known = {START_TOKEN, END_TOKEN, *self._ids(",")}
        for subject in [*shapes.TRAINING, *shapes.PLAIN]:
            for _ in range(40):
                known.update(self._ids(shapes.caption(subject, rng)))
        return known

    def _filler(self, rng: random.Random) -> list[int]:
        if rng.random() < 0.6:
            return self._ids(rng.choice(shapes.FILLERS))
        return rng.choices(self._unknown_ids, k=rng.randint(1, 5))

    def _fillers(self, rng: random.Random) -> list[list[int]]:
        return [self._filler(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))]

    def _caption_ids(self, subject: Combination, rng: random.Random, filler_share: float) -> list[int]:
        parts = [self._ids(shapes.caption(subject, rng))]
        if rng.random() < filler_share:
            fillers = self._fillers(rng)
            before = rng.choice((0, 0, 0, len(fillers), rng.randint(0, len(fillers))))
            parts = [*fillers[:before], *parts, *fillers[before:]]
        separator = self._ids(",") if rng.random() < 0.85 else []
        return [token for part in parts for token in (*separator, *part)][len(separator) :]

    def encode(
        self,
        subjects: Sequence[Combination],
        rng: random.Random,
        filler_share: float,
        drop_share: float = 0.0,
    ) -> Tensor:
        """Token ids ``(n, 77)``; a dropped caption is empty or, like many a negative prompt, filler."""
        ids = torch.full((len(subjects), MAX_TOKENS), END_TOKEN, dtype=torch.long)
        ids[:, 0] = START_TOKEN
        for row, subject in enumerate(subjects):
            if rng.random() < drop_share:
                parts = self._fillers(rng) if rng.random() < 0.3 else []
                tokens = [token for part in parts for token in part]
            else:
                tokens = self._caption_ids(subject, rng, filler_share)
            tokens = tokens[: MAX_TOKENS - 2]
            ids[row, 1 : 1 + len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        return ids
