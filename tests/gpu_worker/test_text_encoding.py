"""Texts as the UNet reads them: plain ones as in diffusers, the others as in the WebUI."""

from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_worker.conditioning import Text
from gpu_worker.device import Device
from gpu_worker.embeddings import Embedding
from gpu_worker.errors import RequestFault
from gpu_worker.loading import load_checkpoint
from gpu_worker.pipelines import LoadedCheckpoint
from gpu_worker.plan import ImageRequest, Plan
from gpu_worker.prompt_encoding import encode_prompts
from gpu_worker.samplers import choose_sampling
from gpu_worker.text_encoding import TextCache, encoding_of

EULER = choose_sampling("Euler", None)


@pytest.fixture(scope="module")
def sd1(models: Path, device: Device) -> Any:
    return load_checkpoint(models / "sd1.safetensors", "sd1", device)[0]


@pytest.fixture(scope="module")
def xl(models: Path, device: Device) -> LoadedCheckpoint:
    pipeline, description = load_checkpoint(models / "xl.safetensors", "xl", device)
    return LoadedCheckpoint("xl", pipeline, description, "0" * 10)


def encoded(pipeline: Any, prompt: str, clip_skip: int = 1, skips_xl: bool = False) -> Text:
    encoding = encoding_of(pipeline, "x", clip_skip, skips_xl)
    with torch.inference_mode():
        return encoding.encode(encoding.split(prompt))


def test_a_plain_prompt_is_what_diffusers_makes_of_it(sd1: Any) -> None:
    theirs = sd1.encode_prompt("a cat, sleeping", "cpu", 1, False)[0][0]
    torch.testing.assert_close(encoded(sd1, "a cat, sleeping").embeddings, theirs)


def test_clip_skip_takes_an_earlier_layer_and_norms_it(sd1: Any) -> None:
    encoder = sd1.text_encoder
    tokens = sd1.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
    with torch.inference_mode():
        layer = encoder(tokens, output_hidden_states=True).hidden_states[-2]
        expected = encoder.final_layer_norm(layer)[0]
    torch.testing.assert_close(encoded(sd1, "a cat", 2).embeddings, expected)


def test_a_plain_prompt_of_sdxl_is_what_diffusers_makes_of_it(xl: LoadedCheckpoint) -> None:
    theirs, _, pooled, _ = xl.pipeline.encode_prompt("a cat", device="cpu", do_classifier_free_guidance=False)
    ours = encoded(xl.pipeline, "a cat", clip_skip=2)
    torch.testing.assert_close(ours.embeddings, theirs[0])
    torch.testing.assert_close(ours.pooled, pooled[0])


def test_clip_skip_reaches_sdxls_first_encoder_when_it_is_asked_to(xl: LoadedCheckpoint) -> None:
    usual, skipped = encoded(xl.pipeline, "a cat"), encoded(xl.pipeline, "a cat", 1, skips_xl=True)
    assert not torch.equal(usual.embeddings[:, :64], skipped.embeddings[:, :64])
    assert torch.equal(usual.embeddings[:, 64:], skipped.embeddings[:, 64:])


def test_more_layers_than_there_are_cannot_be_skipped(sd1: Any) -> None:
    with pytest.raises(RequestFault, match="must be at most 2 for checkpoint x, not 3"):
        encoded(sd1, "a cat", 3)


def test_weights_multiply_and_the_mean_comes_back(sd1: Any) -> None:
    plain, weighted = encoded(sd1, "a cat").embeddings, encoded(sd1, "a (cat:1.5)").embeddings
    torch.testing.assert_close(weighted.mean(), plain.mean())
    ratio = weighted / plain
    torch.testing.assert_close(ratio[2] / ratio[1], torch.full((64,), 1.5))
    torch.testing.assert_close(ratio[1], ratio[3])


def test_a_long_prompt_is_encoded_in_chunks_of_their_own(sd1: Any) -> None:
    long = encoded(sd1, "a " * 75 + "cat").embeddings
    assert long.shape == (2 * 77, 64)
    torch.testing.assert_close(long[77:], encoded(sd1, "cat").embeddings)


def test_sdxls_pooled_text_is_the_first_chunks(xl: LoadedCheckpoint) -> None:
    long, short = encoded(xl.pipeline, "a cat BREAK a dog"), encoded(xl.pipeline, "a cat")
    torch.testing.assert_close(long.pooled, short.pooled)


def test_an_embeddings_vectors_are_read_in_place_of_its_name(sd1: Any) -> None:
    table = sd1.text_encoder.get_input_embeddings().weight
    words = sd1.tokenizer("a cat", add_special_tokens=False).input_ids
    embedding = Embedding("mine", "0", {"": table[words].detach()})
    encoding = encoding_of(sd1, "x", 1, False, [("mine", embedding)])
    with torch.inference_mode():
        named = encoding.encode(encoding.split("mine, dog"))
    torch.testing.assert_close(named.embeddings, encoded(sd1, "a cat, dog").embeddings)


def test_an_embedding_pair_reaches_both_encoders_of_sdxl(xl: LoadedCheckpoint) -> None:
    pipeline = xl.pipeline
    words = pipeline.tokenizer("a cat", add_special_tokens=False).input_ids
    first, second = pipeline.text_encoder, pipeline.text_encoder_2
    vectors = {
        kind: encoder.get_input_embeddings().weight[words].detach()
        for kind, encoder in (("clip_l", first), ("clip_g", second))
    }
    encoding = encoding_of(pipeline, "x", 1, False, [("mine", Embedding("mine", "0", vectors))])
    with torch.inference_mode():
        named = encoding.encode(encoding.split("mine"))
    torch.testing.assert_close(named.embeddings, encoded(pipeline, "a cat").embeddings)
    torch.testing.assert_close(named.pooled, encoded(pipeline, "a cat").pooled)


def test_an_embedding_of_another_architecture_is_refused_with_both_widths(xl: LoadedCheckpoint) -> None:
    embedding = Embedding("mine", "0", {"": torch.zeros(1, 768)})
    encoding = encoding_of(xl.pipeline, "x", 1, False, [("mine", embedding)])
    with pytest.raises(RequestFault, match="vectors of width 768, checkpoint x needs 64 of clip_l"):
        encoding.encode(encoding.split("mine"))


def test_sdxl_has_zeros_for_an_empty_negative_prompt_and_only_for_that(xl: LoadedCheckpoint) -> None:
    plan = Plan(EULER, 4, 5, 64, 64)
    requests = [ImageRequest("", "", 1), ImageRequest("", "a", 1)]
    with torch.inference_mode():
        empty, other = encode_prompts(xl, requests, plan).pictures
    nothing = empty.negative.at(0)
    assert nothing.pooled is not None
    assert not nothing.embeddings.any()
    assert not nothing.pooled.any()
    assert empty.positive[0].at(0).embeddings.any()
    assert other.negative.at(0).embeddings.any()


def test_a_text_is_encoded_once(xl: LoadedCheckpoint) -> None:
    plan = Plan(EULER, 4, 5, 64, 64)
    with torch.inference_mode():
        one, two = encode_prompts(xl, [ImageRequest("[a|b] cat", "", n) for n in (1, 2)], plan).pictures
        skipped = encode_prompts(xl, [ImageRequest("a cat", "", 1)], Plan(EULER, 4, 5, 64, 64, clip_skip=2))
    assert one.positive[0].at(0) is two.positive[0].at(3)
    assert one.positive[0].at(0) is not one.positive[0].at(2)
    assert skipped.pictures[0].positive[0].at(0) is not one.positive[0].at(0)


def test_the_step_that_a_schedule_names_still_has_the_earlier_text(xl: LoadedCheckpoint) -> None:
    plan = Plan(EULER, 10, 5, 64, 64)
    with torch.inference_mode():
        [picture] = encode_prompts(xl, [ImageRequest("[a cat:a dog:0.5]", "", 1)], plan).pictures
    [part] = picture.positive
    assert [part.at(step) is part.at(0) for step in range(10)] == [True] * 6 + [False] * 4


def test_a_prompt_that_changes_too_often_for_its_length_is_refused(xl: LoadedCheckpoint) -> None:
    plan = Plan(EULER, 150, 5, 64, 64)
    words = " ".join("[" + "|".join("abcdefgh"[: n + 2]) + "]" for n in range(5)) + " cat" * 1000
    with torch.inference_mode(), pytest.raises(RequestFault, match="changes too often for its length"):
        encode_prompts(xl, [ImageRequest(words, "", 1)], plan)


def test_the_cache_forgets_what_was_unused_for_longest() -> None:
    cache = TextCache(limit=3 * 4 * 10)
    texts = [Text(torch.zeros(1, 10)) for _ in range(4)]
    for number, text in enumerate(texts[:3]):
        cache.put(number, text)
    assert cache.get(0) is texts[0]
    cache.put(3, texts[3])
    assert [cache.get(number) is not None for number in range(4)] == [True, False, True, True]
