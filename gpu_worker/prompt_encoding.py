"""Encodes the prompts of a batch for the UNet: composed, scheduled and weighted as they say."""

from collections.abc import Sequence

import torch

from gpu_worker.architecture import XL_FAMILIES, Family
from gpu_worker.conditioning import Conditioning, Part, PictureConditioning, Text
from gpu_worker.errors import RequestFault
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.prompt_schedule import Pass, schedule, split_and
from gpu_worker.text_encoding import Encoding, encoding_of
from gpu_worker.token_chunks import Item

# A picture's texts at all of its steps: enough for a change of four chunks at each of 150 steps.
MOST_CHUNKS = 600


def encode_prompts(
    checkpoint: LoadedCheckpoint, requests: Sequence[ImageRequest], plan: Plan
) -> Conditioning:
    """The conditioning of a batch, in the order of the requests; the plan's networks must be in effect.

    Every text is encoded by itself, so that a picture does not depend on its neighbours. Raises
    `RequestFault` for prompts that are too long, and for embeddings of another architecture.
    """
    embeddings = [(use.name, use.load()) for use in plan.networks.embeddings]
    encoding = encoding_of(
        checkpoint.pipeline, checkpoint.name, plan.clip_skip, plan.clip_skip_xl, embeddings
    )
    reader = _Reader(checkpoint, encoding, plan)
    return Conditioning([reader.picture(request) for request in requests])


class _Reader:
    """Encodes what has not been encoded before."""

    def __init__(self, checkpoint: LoadedCheckpoint, encoding: Encoding, plan: Plan) -> None:
        self._cache = checkpoint.texts
        self._encoding = encoding
        self._is_xl = any(encoder.pools for encoder in encoding.encoders)
        self._plan = plan
        self._pass = Pass(plan.prompt_steps or plan.steps, plan.steps_before)
        self._left = MOST_CHUNKS
        self._sizes = size_ids(checkpoint, plan)

    def picture(self, request: ImageRequest) -> PictureConditioning:
        """What pulls and pushes one picture; ``AND`` has no meaning in a negative prompt, as in the WebUI."""
        self._left = MOST_CHUNKS
        positive = tuple(self._part(text, weight) for text, weight in split_and(request.prompt))
        negative = self._part(request.negative_prompt, is_negative=True)
        return PictureConditioning(positive, negative, *self._sizes)

    def _part(self, prompt: str, weight: float = 1.0, is_negative: bool = False) -> Part:
        planned = schedule(prompt, self._pass)
        split = {text: self._encoding.split(text) for _, text in planned}
        # As in the WebUI the texts of one schedule are equally long, filled up with empty chunks.
        longest = max(len(chunks) for chunks in split.values())
        self._left -= longest * len(split)
        if self._left < 0:
            raise RequestFault(
                f"the prompt changes too often for its length: all its texts may have at most {MOST_CHUNKS} "
                "chunks of 75 tokens"
            )
        texts = {}
        for text, chunks in split.items():
            is_zero = is_negative and self._is_xl and text == "" and len(split) == 1
            texts[text] = self._text(text, chunks + [[]] * (longest - len(chunks)), is_zero)
        # The step that a schedule names still has the earlier text.
        return Part(tuple((end + 1, texts[text]) for end, text in planned), weight)

    def _text(self, text: str, chunks: list[list[Item]], is_zero: bool) -> Text:
        plan = self._plan
        key = (text, len(chunks), is_zero, plan.clip_skip, plan.clip_skip_xl, plan.networks.text_key)
        found = self._cache.get(key)
        if found is None:
            found = self._encoding.encode(chunks)
            if is_zero:
                # SDXL was trained with zeros in place of an empty negative prompt.
                pooled = None if found.pooled is None else torch.zeros_like(found.pooled)
                found = Text(torch.zeros_like(found.embeddings), pooled)
            self._cache.put(key, found)
        return found


def size_ids(checkpoint: LoadedCheckpoint, plan: Plan) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """SDXL's numbers beside a prompt and a negative prompt: sizes, and for its refiner a beauty wished for.

    The scores are the defaults of the WebUI's settings sdxl_refiner_high_aesthetic_score and …_low_….
    """
    if checkpoint.family not in XL_FAMILIES:
        return None, None
    size: list[float] = [plan.height, plan.width, 0, 0]
    is_refiner = checkpoint.family is Family.SDXL_REFINER
    ends: list[list[float]] = [[6.0], [2.5]] if is_refiner else [[plan.height, plan.width]] * 2
    rows = [size + end for end in ends]
    numbers = torch.tensor(rows, device=checkpoint.pipeline.unet.device, dtype=torch.float32)
    return numbers[0], numbers[1]
