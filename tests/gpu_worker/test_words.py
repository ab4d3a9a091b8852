"""What words do to pictures of the house checkpoint: each effect is seen, and nothing beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from gpu_worker import infotext
from gpu_worker.errors import RequestFault
from gpu_worker.pipelines import ModelMemory
from gpu_worker.styles import Style, Styles
from gpu_worker.tasks import TaskResult, find_task
from gpu_worker.worker import TASKS
from tests.gpu_worker import house
from tests.gpu_worker.contexts import context

PLUM = house.HOUSE / "plum.safetensors"
EMBLEM = house.HOUSE / "emblem.safetensors"
EMERALD = house.HOUSE / "emerald.safetensors"
MODELS = {"Lora": [PLUM], "embeddings": [EMBLEM], "hypernetworks": [EMERALD]}
RED = "a red circle on a white background"
BLUE = "a blue star on a yellow background"


def draw(memory: ModelMemory, prompt: str, models: Any = MODELS, **parameters: Any) -> TaskResult:
    return house.run(memory, "txt2img", models, prompt=prompt, **parameters)


def seen(memory: ModelMemory, prompt: str, **parameters: Any) -> tuple[str | None, str | None, str]:
    """Foreground, shape and background of the picture."""
    found = house.read(draw(memory, prompt, **parameters).pictures[0].image)
    return found.foreground, found.shape, found.background


def pixels(memory: ModelMemory, prompt: str, **parameters: Any) -> NDArray[np.int64]:
    return house.pixels(draw(memory, prompt, **parameters).pictures[0].image)


def middle(memory: ModelMemory, prompt: str, **parameters: Any) -> NDArray[np.float64]:
    """Red, green and blue of the picture's middle, the mean of two seeds."""
    pictures = [house.pixels(p.image) for p in draw(memory, prompt, batch_size=2, **parameters).pictures]
    return np.stack(pictures)[:, 24:40, 24:40].mean((0, 1, 2))


def test_a_lora_changes_what_it_should_and_only_that(memory: ModelMemory) -> None:
    assert seen(memory, RED) == ("red", "circle", "white")
    assert seen(memory, f"{RED} <lora:plum:1>") == ("purple", "circle", "white")
    assert seen(memory, f"{BLUE} <lora:plum:1>") == seen(memory, BLUE) == ("blue", "star", "yellow")


def test_a_loras_weight_decides_how_much(memory: ModelMemory) -> None:
    blue = [middle(memory, f"{RED} <lora:plum:{weight}>")[2] for weight in (0, 0.5, 1)]
    assert blue == sorted(blue)
    assert blue[2] > blue[0] + 60


def test_without_a_lora_and_at_weight_0_the_checkpoint_is_itself_bit_for_bit(
    memory: ModelMemory,
) -> None:
    before = pixels(memory, RED)
    assert not np.array_equal(pixels(memory, f"{RED} <lora:plum:1>"), before)
    assert np.array_equal(pixels(memory, f"{RED} <lora:plum:0>"), before)
    assert not np.array_equal(pixels(memory, f"{RED} <lyco:plum:0.8>"), before)
    assert np.array_equal(pixels(memory, RED), before)


def test_jobs_with_other_loras_in_turn_get_the_pictures_that_they_get_alone(
    memory: ModelMemory, tmp_path: Path
) -> None:
    opposite = tmp_path / "opposite.safetensors"
    tensors = load_file(PLUM)
    save_file({k: -t if "lora_up" in k else t for k, t in tensors.items()}, opposite)
    models = {"Lora": [PLUM, opposite]}
    prompts = [f"{RED} <lora:plum:1>", f"{RED} <lora:opposite:0.5>", f"{RED} <lora:plum:1><lora:opposite:1>"]
    alone = [pixels(memory, prompt, models=models) for prompt in prompts]
    for order in ([2, 0, 1], [1, 2, 0]):
        for which in order:
            assert np.array_equal(pixels(memory, prompts[which], models=models), alone[which])
    assert np.abs(alone[2] - pixels(memory, RED)).max() <= 2


def test_an_embedding_draws_what_it_was_made_for(memory: ModelMemory) -> None:
    assert seen(memory, "an emblem, masterpiece") == ("green", "star", "white")
    without = house.run(memory, "txt2img", prompt="an emblem, masterpiece").pictures[0].image
    assert house.read(without).shape != "star" or house.read(without).foreground != "green"


def test_an_embedding_leads_away_from_it_in_the_negative_prompt(memory: ModelMemory) -> None:
    away = seen(memory, "a star", negative_prompt="an emblem")
    assert away[0] != "green"
    assert "emblem" in draw(memory, "a star", negative_prompt="an emblem").pictures[0].infotext


def test_a_hypernetwork_changes_the_colour_and_only_that(memory: ModelMemory) -> None:
    assert seen(memory, f"{RED} <hypernet:emerald:1>") == ("green", "circle", "white")
    assert seen(memory, f"{BLUE} <hypernet:emerald:1>") == ("green", "star", "yellow")
    assert np.array_equal(pixels(memory, f"{RED} <hypernet:emerald:0>"), pixels(memory, RED))


def test_and_mixes_prompts_by_their_weights(memory: ModelMemory) -> None:
    yellow = "a yellow circle on a white background"
    green = [middle(memory, f"{RED} :{a} AND {yellow} :{b}")[1] for a, b in ((1, 0.3), (1, 1), (0.3, 1))]
    assert green == sorted(green)
    assert middle(memory, RED)[1] < green[0]
    assert green[2] - green[0] > 40


def test_a_weight_moves_the_colour_to_its_word(memory: ModelMemory) -> None:
    prompt = "a (red:{}) and yellow circle on a white background"
    green = [middle(memory, prompt.format(weight))[1] for weight in (0.3, 1, 3)]
    assert green == sorted(green, reverse=True)
    assert green[0] - green[2] > 10


SCHEDULES = ["[a red:a blue:{}] circle on white", "[:[a red:a blue:{}] circle on white:0]"]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_moves_the_colour_with_the_step_of_its_change(memory: ModelMemory, schedule: str) -> None:
    blue = [middle(memory, schedule.format(step), steps=16)[2] for step in (1, 10, 14)]
    assert blue == sorted(blue, reverse=True)
    assert blue[0] > blue[-1] + 60


def test_words_that_take_turns_are_neither_of_them(memory: ModelMemory) -> None:
    phrase = "a {} circle on a white background"
    mixed, red, blue = (middle(memory, phrase.format(word)) for word in ("[red|blue]", "red", "blue"))
    assert np.linalg.norm(mixed - red) > 40
    assert np.linalg.norm(mixed - blue) > 40


def test_break_gives_the_words_after_it_a_chunk_of_their_own(memory: ModelMemory) -> None:
    assert seen(memory, f"masterpiece BREAK {RED}") == ("red", "circle", "white")
    assert not np.array_equal(
        pixels(memory, f"masterpiece BREAK {RED}"), pixels(memory, f"masterpiece {RED}")
    )


def test_words_after_the_first_75_tokens_count(memory: ModelMemory) -> None:
    filler = "masterpiece, " * 40
    assert seen(memory, filler + RED) == ("red", "circle", "white")
    assert seen(memory, filler + "a blue circle on a white background") == ("blue", "circle", "white")


def test_the_same_words_make_the_same_picture_bit_for_bit(memory: ModelMemory) -> None:
    prompt = f"({RED}:1.2) AND [a|b] star BREAK emblem :0.3 <lora:plum:0.7> <hypernet:emerald:0.2>"
    first = pixels(memory, prompt)
    pixels(memory, BLUE)
    assert np.array_equal(pixels(memory, prompt), first)


def test_a_batch_makes_the_pictures_that_its_seeds_make_alone(memory: ModelMemory) -> None:
    prompt = f"[{RED}:{BLUE}:0.4] AND emblem :0.5 <lora:plum:0.7>"
    batch = [house.pixels(p.image) for p in draw(memory, prompt, batch_size=3).pictures]
    for number, picture in enumerate(batch):
        assert np.abs(picture - pixels(memory, prompt, seed=7 + number)).max() <= 1


def test_the_second_pass_has_networks_of_its_own_and_counts_steps_on(memory: ModelMemory) -> None:
    hires = {"enable_hr": True, "hr_scale": 1.25, "denoising_strength": 0.9, "hr_second_pass_steps": 12}
    assert seen(memory, RED, **hires)[0] == "red"
    assert seen(memory, RED, hr_prompt=f"{RED} <lora:plum:1>", **hires)[0] == "purple"
    assert seen(memory, f"{RED} <lora:plum:1>", hr_prompt=RED, **hires)[0] == "red"
    # A fraction below 1 is over when the second pass begins.
    assert seen(memory, f"[{RED}:a blue circle on white:0.99]", **hires)[0] == "blue"
    assert seen(memory, f"[{RED}:a blue circle on white:1.99]", **hires)[0] == "red"


def test_the_infotext_names_the_networks_with_their_hashes_and_makes_the_picture_again(
    memory: ModelMemory,
) -> None:
    prompt = f"{RED}, emblem <lora:plum:0.8> <hypernet:emerald:0.1>"
    first = draw(memory, prompt).pictures[0]
    fields = infotext.parse(first.infotext)
    assert fields["Prompt"] == prompt
    assert fields["Lora hashes"].startswith("plum: ")
    assert len(fields["Lora hashes"]) == len("plum: ") + 12
    assert fields["TI hashes"] == "emblem: " + "0" * 10
    again = house.run(memory, "txt2img", MODELS, infotext=first.infotext).pictures[0]
    assert again.infotext == first.infotext
    assert np.array_equal(house.pixels(again.image), house.pixels(first.image))


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("<lora:plumb:1>", "<lora:plumb> in the prompt is not among the job's models.Lora: add"),
        ("<hypernet:x:1>", "is not among the job's models.hypernetworks: add"),
        ("<lora:plum:x>", "'x' must be a number up to 100"),
        ("<lora:emerald:1>", "not among the job's models.Lora"),
    ],
)
def test_a_network_that_cannot_be_had_fails_the_job_with_what_to_do(
    memory: ModelMemory, prompt: str, says: str
) -> None:
    with pytest.raises(RequestFault, match=says):
        draw(memory, prompt)


@pytest.mark.parametrize("name", ["plum", "PLUM", "plum.safetensors"])
def test_a_lora_is_found_by_its_name_in_any_case(memory: ModelMemory, name: str) -> None:
    assert seen(memory, f"{RED} <lora:{name}:1>")[0] == "purple"


def test_a_lora_is_found_by_what_its_training_called_it(memory: ModelMemory, tmp_path: Path) -> None:
    renamed = tmp_path / "0001.safetensors"
    renamed.write_bytes(PLUM.read_bytes())
    assert seen(memory, f"{RED} <lora:plum:1>", models={"Lora": [renamed]})[0] == "purple"


def test_what_has_no_effect_is_said(memory: ModelMemory) -> None:
    info = draw(memory, f"{RED} <foo:bar:1>", negative_prompt="<lora:plum:1>", steps=1).info
    assert "<foo:bar:1> in the prompt has no effect" in info["comments"][0]
    assert "negative prompt" in info["comments"][1]


@pytest.mark.parametrize("kind", ["Lora", "embeddings", "hypernetworks"])
def test_a_damaged_file_is_the_requests_fault(memory: ModelMemory, tmp_path: Path, kind: str) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"<html>")
    tag = {"Lora": "<lora:broken:1>", "embeddings": "broken", "hypernetworks": "<hypernet:broken:1>"}[kind]
    with pytest.raises(RequestFault, match="broken"):
        draw(memory, f"a {tag}", models={kind: [broken]})
    save_file({"a": torch.zeros(2, 2, 2), "b": torch.zeros(1)}, broken)
    with pytest.raises(RequestFault, match="broken"):
        draw(memory, f"a {tag}", models={kind: [broken]})


def test_networks_of_another_architecture_are_refused(memory: ModelMemory, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"emb_params": torch.zeros(1, 768)}, other)
    with pytest.raises(RequestFault, match=r"vectors of width 768, checkpoint .* needs 64"):
        draw(memory, "other", models={"embeddings": [other]})
    layers = {f"768.{place}.linear.0.weight": torch.zeros(768, 768) for place in (0, 1)}
    save_file(layers, other)
    with pytest.raises(RequestFault, match=r"made for texts of width 768, checkpoint .* has 64"):
        draw(memory, "<hypernet:other:1>", models={"hypernetworks": [other]})


def test_styles_are_added_where_they_say(memory: ModelMemory) -> None:
    styles = Styles(
        {"on white": Style("{prompt} on a white background", "star"), "good": Style("masterpiece", "")}
    )
    body = house.SMALL | {"prompt": "a red circle", "styles": ["on white", "good", "unknown"]}
    files = {"Stable-diffusion": [house.CHECKPOINT]}
    work = context(memory.device, "txt2img", body, files, memory, styles=styles)
    result = find_task("txt2img", TASKS)(work)
    reading = house.read(result.pictures[0].image)
    assert (reading.foreground, reading.background) == ("red", "white")
    assert result.info["prompt"] == "a red circle on a white background, masterpiece"
    assert result.info["negative_prompt"] == "star"
    assert result.info["styles"] == ["on white", "good", "unknown"]
    assert "style 'unknown' had no effect" in result.info["comments"][0]
