"""Interrogation: what the networks see comes out as the WebUI writes it, without any picture."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BlipConfig, BlipForConditionalGeneration

from gpu_worker import interrogation
from gpu_worker.captions import load_captioner
from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.results import encode_parameters
from tests.gpu_worker import graphs
from tests.gpu_worker.contexts import Steps, context, encoded

WORDS = ["[PAD]", "[SEP]", "a", "red", "circle", "##s", ",", "on", "white"]
TABLE = "tag_id,name,category,count\n0,blue_(colour),0,9\n1,rating_green,9,9\n2,red_coat,0,9\n"


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tagger")
    (folder / "selected_tags.csv").write_text(TABLE)
    return [graphs.tagger(folder / "model.onnx"), folder / "selected_tags.csv"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("blip")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    text = sizes | {
        "vocab_size": len(WORDS) + 2,
        "encoder_hidden_size": 64,
        "bos_token_id": len(WORDS),
        "sep_token_id": 1,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    config = BlipConfig(text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 8})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return [folder / "model.safetensors", folder / "vocab.txt"]


def test_tags_above_the_threshold_are_written_as_deepbooru_writes_them(
    device: Device, tagger: list[Path]
) -> None:
    picture = Image.new("RGB", (20, 20), (200, 255, 150))
    work = context(device, "interrogate_deepbooru", {"image": encoded(picture)}, {"Interrogator": tagger})
    result = interrogation.run_deepbooru(work)
    assert result.pictures == []
    assert result.info["caption"] == "blue \\(colour\\), red coat"
    assert list(result.info["tags"]) == ["red_coat", "blue_(colour)"]
    assert b"red coat" in encode_parameters({}, result)
    assert isinstance(work.progress, Steps)
    assert work.progress.announced == [(0, 1)]


def test_a_higher_threshold_says_less(device: Device, tagger: list[Path]) -> None:
    body = {"image": encoded(Image.new("RGB", (20, 20), (200, 255, 150))), "threshold": 0.7}
    work = context(device, "interrogate_deepbooru", body, {"Interrogator": tagger})
    assert interrogation.run_deepbooru(work).info["caption"] == "red coat"


def test_blip_says_what_transformers_says(device: Device, blip: list[Path]) -> None:
    picture = Image.new("RGB", (40, 30), (200, 20, 10))
    work = context(device, "interrogate_clip", {"image": encoded(picture)}, {"Interrogator": blip})
    caption = interrogation.run_clip(work).info["caption"]
    weights, words = work.job.models
    ours = load_captioner(work, weights, words)
    theirs = BlipForConditionalGeneration.from_pretrained(blip[0].parent)
    for key, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, ours.model.state_dict()[key]), key
    assert caption
    assert set(caption.replace(",", " ").replace("circles", "circle").split()) <= {*WORDS, "s"} | {
        word + "s" * n for word in WORDS for n in range(50)
    }


def test_words_are_spelled_as_bert_joins_them(device: Device, blip: list[Path]) -> None:
    work = context(device, "interrogate_clip", {}, {"Interrogator": blip})
    captioner = load_captioner(work, *work.job.models)
    assert captioner.spell([9, 2, 3, 4, 5, 6, 7, 8, 1, 0, 10]) == "a red circles, on white"


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (
            "interrogate_clip",
            "needs BLIP's model.safetensors and its vocab.txt in models.Interrogator: no .safetensors",
        ),
        (
            "interrogate_deepbooru",
            "needs a tagger's model.onnx and its selected_tags.csv in models.Interrogator",
        ),
    ],
)
def test_a_missing_model_is_named(device: Device, task: str, says: str) -> None:
    body = {"image": encoded(Image.new("RGB", (8, 8)))}
    run = interrogation.run_clip if task == "interrogate_clip" else interrogation.run_deepbooru
    with pytest.raises(RequestFault, match=says):
        run(context(device, task, body))


def test_files_that_do_not_belong_together_are_told(
    device: Device, tagger: list[Path], blip: list[Path]
) -> None:
    body = {"image": encoded(Image.new("RGB", (8, 8)))}
    short = tagger[1].parent / "short.csv"
    short.write_text("name,category\nred,0\n")
    with pytest.raises(RequestFault, match="knows 3 tags, its table has 1 rows"):
        interrogation.run_deepbooru(
            context(device, "interrogate_deepbooru", body, {"Interrogator": [tagger[0], short]})
        )
    other = blip[1].parent / "other.txt"
    other.write_text("[PAD]\n[SEP]\na\n")
    with pytest.raises(RequestFault, match=r"other\.txt is not the vocabulary of model\.safetensors"):
        interrogation.run_clip(context(device, "interrogate_clip", body, {"Interrogator": [blip[0], other]}))
