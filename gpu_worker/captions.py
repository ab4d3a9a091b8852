"""BLIP, which captions pictures: configured by its tensors, loaded offline, decoded with its words."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from safetensors.torch import load_file
from transformers import BlipConfig, BlipForConditionalGeneration, StoppingCriteria, StoppingCriteriaList

from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.jobs import ModelFile
from gpu_worker.model_configs import Shapes
from gpu_worker.safetensors_header import read_header
from gpu_worker.tasks import TaskContext

VISION = "vision_model."
TEXT = "text_decoder.bert."
HEAD_WIDTH = 64
# The WebUI's interrogate_clip_min_length and interrogate_clip_max_length.
LEAST_WORDS, MOST_WORDS = 24, 48
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
# BLIP's text decoder begins with [DEC], the first token that it added to BERT's, and ends with [SEP].
SEPARATOR, PADDING = "[SEP]", "[PAD]"
ADDED_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Captioner:
    """A loaded BLIP and its vocabulary."""

    model: Any
    words: list[str]

    def caption(self, picture: Image.Image, check: Callable[[], None]) -> str:
        """One sentence about an RGB picture; `check` may raise to stop between words."""
        side = self.model.config.vision_config.image_size
        pixels = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        array = torch.from_numpy(((pixels - MEAN) / DEVIATION).transpose(2, 0, 1)[None].copy())
        weight = self.model.vision_model.embeddings.patch_embedding.weight
        with torch.inference_mode():
            ids = self.model.generate(
                pixel_values=array.to(weight.device, weight.dtype),
                min_length=LEAST_WORDS,
                max_length=MOST_WORDS,
                num_beams=1,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([_Check(check)]),
            )[0]
        return self.spell(ids.tolist())

    def spell(self, ids: list[int]) -> str:
        """The text of BERT tokens: ``##`` goes on with the word before, ``[…]`` are marks."""
        tokens = [self.words[one] for one in ids if 0 <= one < len(self.words)]
        shown = " ".join(token for token in tokens if not re.fullmatch(r"\[.*\]", token))
        return re.sub(r" ([.,!?'])", r"\1", shown.replace(" ##", ""))


class _Check(StoppingCriteria):
    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._check()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def load_captioner(context: TaskContext, weights: ModelFile, words: ModelFile) -> Captioner:
    """BLIP in memory; raises `RequestFault` when a file is at fault."""
    vocabulary = context.memory.other(
        "words", words, context.open_file, lambda stored: _read_words(stored, words.name)
    )

    def load(stored: StoredFile) -> tuple[Any, int]:
        shapes = Shapes(read_header(stored.path, weights.name), weights.name)
        config = blip_config(shapes, vocabulary, words.name)
        with init_empty_weights():
            model = BlipForConditionalGeneration(config)
        model.load_state_dict(load_file(stored.path), strict=False, assign=True)
        model.tie_weights()
        for key, parameter in model.named_parameters():
            if parameter.is_meta:
                raise RequestFault(f'{weights.name} cannot be used as BLIP: it lacks the tensor "{key}"')
        device = context.memory.device
        model.requires_grad_(False).eval().to(device.torch_device, device.dtype)
        return model, sum(one.numel() * one.element_size() for one in model.parameters())

    return Captioner(context.memory.other("blip", weights, context.open_file, load), vocabulary)


def blip_config(shapes: Shapes, words: list[str], words_name: str) -> BlipConfig:
    """The configuration of ``BlipForConditionalGeneration`` that the file's shapes mean."""
    width = shapes.size(VISION + "embeddings.class_embedding", 2, 3)
    patch = shapes.size(VISION + "embeddings.patch_embedding.weight", 3, 4)
    places = shapes.size(VISION + "embeddings.position_embedding", 1, 3)
    table = TEXT + "embeddings.word_embeddings.weight"
    tokens, hidden = shapes.size(table, 0, 2), shapes.size(table, 1, 2)
    if SEPARATOR not in words or PADDING not in words or len(words) not in (tokens, tokens - ADDED_TOKENS):
        raise RequestFault(
            f"{words_name} is not the vocabulary of {shapes.name}, which knows {tokens} tokens"
        )
    text = {
        "vocab_size": tokens,
        "hidden_size": hidden,
        "encoder_hidden_size": width,
        "num_hidden_layers": shapes.count(re.escape(TEXT) + r"encoder\.layer\.(\d+)\."),
        "num_attention_heads": max(1, hidden // HEAD_WIDTH),
        "intermediate_size": shapes.size(TEXT + "encoder.layer.0.intermediate.dense.weight", 0, 2),
        "max_position_embeddings": shapes.size(TEXT + "embeddings.position_embeddings.weight", 0, 2),
        "bos_token_id": tokens - ADDED_TOKENS,
        "sep_token_id": words.index(SEPARATOR),
        "eos_token_id": words.index(SEPARATOR),
        "pad_token_id": words.index(PADDING),
    }
    vision = {
        "hidden_size": width,
        "num_hidden_layers": shapes.count(re.escape(VISION) + r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": max(1, width // HEAD_WIDTH),
        "intermediate_size": shapes.size(VISION + "encoder.layers.0.mlp.fc1.weight", 0, 2),
        "patch_size": patch,
        "image_size": math.isqrt(places - 1) * patch,
    }
    return BlipConfig(text_config=text, vision_config=vision)


def _read_words(stored: StoredFile, name: str) -> tuple[list[str], int]:
    try:
        content = stored.path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RequestFault(f"{name} is no vocabulary: it must be text with one token on a line") from None
    return content.splitlines(), len(content)
