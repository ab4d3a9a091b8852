"""Encodes one text for a checkpoint's UNet: tokens, embeddings, clip skip, weights; and remembers texts.

Meaning: ``TextConditionalModel`` and its heirs in modules/sd_hijack_clip.py, sd_hijack_open_clip.py and
sd_models_xl.py of the WebUI.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpu_worker.conditioning import Text
from gpu_worker.embeddings import FIRST, SECOND, SINGLE, Embedding
from gpu_worker.errors import RequestFault
from gpu_worker.token_chunks import Item, Special, Vocabulary, chunks, token_row, vectors_of, weight_row

MOST_CACHED_BYTES = 128 * 1024 * 1024
START, END = 49406, 49407
OPEN_CLIP_PAD = 0


@dataclass(slots=True)
class TextCache:
    """The texts that a checkpoint has encoded, the least recently used leaving first."""

    limit: int = MOST_CACHED_BYTES
    _texts: OrderedDict[Hashable, Text] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def get(self, key: Hashable) -> Text | None:
        """A text that was kept under exactly this key."""
        if key in self._texts:
            self._texts.move_to_end(key)
        return self._texts.get(key)

    def put(self, key: Hashable, text: Text) -> None:
        """Keeps a text, and forgets others when they are too many."""
        self._texts[key] = text
        self._bytes += _bytes_of(text)
        while self._bytes > self.limit and len(self._texts) > 1:
            _, forgotten = self._texts.popitem(last=False)
            self._bytes -= _bytes_of(forgotten)


def _bytes_of(text: Text) -> int:
    tensors = [text.embeddings] if text.pooled is None else [text.embeddings, text.pooled]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass(frozen=True, slots=True)
class _Encoder:
    """One of a pipeline's text encoders; `kind` names its vectors in embeddings, `layer` counts from the end.

    `layer` None is the last one with its norm; `normed` puts the norm after an earlier one too.
    """

    model: Any
    tokenizer: Any
    kind: str
    special: Special
    layer: int | None
    normed: bool = False
    pools: bool = False


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a checkpoint reads texts: its encoders at one clip skip, and embeddings that prompts may name."""

    checkpoint: str
    encoders: tuple[_Encoder, ...]
    embeddings: Sequence[tuple[str, Embedding]] = ()

    def split(self, prompt: str) -> list[list[Item]]:
        """The chunks of a prompt; all encoders read the same tokens."""
        return chunks(prompt, self._vocabulary)

    @property
    def _vocabulary(self) -> Vocabulary:
        tokenizer = self.encoders[0].tokenizer
        plain = Vocabulary(tokenizer)
        names = [tuple(plain.ids([name])[0]) for name, _ in self.embeddings]
        pairs = [(ids, e) for ids, (_, e) in zip(names, self.embeddings, strict=True) if ids]
        return Vocabulary(tokenizer, sorted(pairs, key=lambda pair: -len(pair[0])))

    def encode(self, split: Sequence[Sequence[Item]]) -> Text:
        """The chunks one after the other, (77 for each, width); SDXL's pooled text is the first chunk's."""
        found, pooled = [], None
        for encoder in self.encoders:
            states, pool = self._encoded(encoder, split)
            found.append(_weighted(states, split))
            pooled = pool if pool is not None else pooled
        embeddings = torch.cat(found, dim=-1)
        return Text(embeddings.reshape(-1, embeddings.shape[-1]), pooled)

    def _encoded(self, encoder: _Encoder, split: Sequence[Sequence[Item]]) -> tuple[Tensor, Tensor | None]:
        model = encoder.model
        width = model.config.hidden_size
        tokens = torch.tensor([token_row(chunk, encoder.special) for chunk in split], device=model.device)
        vectors = [
            vectors_of(chunk, lambda embedding: embedding.of(encoder.kind, width, self.checkpoint))
            for chunk in split
        ]
        with _replaced(model.get_input_embeddings(), vectors):
            output = model(tokens, output_hidden_states=encoder.layer is not None)
        if encoder.layer is None:
            states = output.last_hidden_state
        else:
            states = output.hidden_states[-encoder.layer]
            if encoder.normed:
                # transformers 5.6 dropped the model inside the model.
                states = getattr(model, "text_model", model).final_layer_norm(states)
        return states, output.text_embeds[0] if encoder.pools else None


def encoding_of(
    pipeline: Any, name: str, clip_skip: int, skips_xl: bool, embeddings: Sequence[tuple[str, Embedding]] = ()
) -> Encoding:
    """How the checkpoint `name` reads texts.

    As in the WebUI clip skip is for SD 1.x; SDXL's first encoder follows it when `skips_xl` says so
    (``sdxl_clip_l_skip``), else SDXL and SD 2.x keep the layer that they were trained with.
    """
    first, second = pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)
    clip = Special(START, END, END)
    open_clip = Special(START, END, OPEN_CLIP_PAD)
    encoders = []
    if second is None:
        is_open_clip = first.config.hidden_act == "gelu"
        skipped = None if is_open_clip or clip_skip == 1 else _layer(first, clip_skip, name)
        special = open_clip if is_open_clip else clip
        encoders.append(_Encoder(first, pipeline.tokenizer, SINGLE, special, skipped, normed=True))
    elif first is not None:
        layer = _layer(first, clip_skip, name) if skips_xl else 2
        encoders.append(_Encoder(first, pipeline.tokenizer, FIRST, clip, layer))
    if second is not None:
        encoders.append(_Encoder(second, pipeline.tokenizer_2, SECOND, open_clip, 2, pools=True))
    return Encoding(name, tuple(encoders), embeddings)


def _layer(model: Any, clip_skip: int, name: str) -> int:
    layers = model.config.num_hidden_layers
    if clip_skip > layers:
        raise RequestFault(
            f"CLIP_stop_at_last_layers must be at most {layers} for checkpoint {name}, not {clip_skip}"
        )
    return clip_skip


def _weighted(states: Tensor, split: Sequence[Sequence[Item]]) -> Tensor:
    """Multiplies each token's vector by its weight and gives every chunk its mean back."""
    if all(item.weight == 1 for chunk in split for item in chunk):
        return states
    weights = torch.tensor([weight_row(chunk) for chunk in split], device=states.device)
    before = states.float()
    after = before * weights[:, :, None]
    ratio = before.mean((1, 2), keepdim=True) / after.mean((1, 2), keepdim=True)
    # A mean of zero cannot be given back.
    return (after * torch.where(torch.isfinite(ratio), ratio, torch.ones_like(ratio))).to(states.dtype)


@contextmanager
def _replaced(table: torch.nn.Module, vectors: Sequence[dict[int, Tensor]]) -> Iterator[None]:
    """Puts embeddings' vectors in place of the tokens' own inside the block."""
    if not any(vectors):
        yield
        return

    def put(_module: torch.nn.Module, _arguments: Any, found: Tensor) -> Tensor:
        changed = found.clone()
        for row, places in enumerate(vectors):
            for place, vector in places.items():
                changed[row, place] = vector.to(changed)
        return changed

    handle = table.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
