"""config_params in the documented names and in kohya's, and what is said of wrong ones."""

import pytest

from gpu_worker.errors import RequestFault
from gpu_worker.training.names import NAMES
from gpu_worker.training.settings import NO_EFFECT, READ_BEFORE, Settings, parse


def settings(**config: object) -> Settings:
    return parse(config, NAMES).settings


def test_documented_names_and_kohyas_mean_the_same() -> None:
    documented = settings(
        use_lora=True,
        lora_unet_rank=8,
        lora_learning_rate="0.001",
        num_train_epochs=3,
        train_batch_size=2,
        hflip=True,
        offset_noise=0.1,
        stop_text_encoder=1,
        resolution=512,
        sanity_seed=5,
    )
    kohya = settings(
        network_module="networks.lora",
        network_dim="8",
        unet_lr=1e-3,
        max_train_epochs=3,
        train_batch_size="2",
        flip_aug="true",
        noise_offset=0.1,
        network_train_unet_only=False,
        resolution="512,512",
        seed=5,
    )
    assert documented == kohya
    assert documented.rate_of("unet") == 1e-3
    assert documented.scale == 8


def test_groups_are_read_and_unknown_names_reported() -> None:
    parsed = parse(
        {"saving_arguments": {"output_name": "x", "save_every_n_epochs": 2}, "nonsense": 1, "more": {"b": 2}},
        NAMES,
    )
    assert parsed.settings.save_every_epochs == 2
    assert parsed.unknown == ("b", "nonsense")


def test_what_has_no_effect_here_is_told_apart_from_what_is_unknown() -> None:
    parsed = parse({"xformers": True, "output_dir": "/tmp/x", "output_name": "a", "what": 1}, NAMES)
    assert (parsed.ignored, parsed.unknown) == (("output_dir", "xformers"), ("what",))


def test_every_setting_of_the_table_exists_and_nothing_is_empty_or_null() -> None:
    known = set(Settings.__dataclass_fields__)
    assert {setting for setting, _ in NAMES.values()} - {READ_BEFORE, NO_EFFECT} <= known
    assert settings(network_dim=None, learning_rate="") == Settings()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("network_dim", 0, "a whole number from 1 to 1024, not '0'"),
        ("network_dim", 1.5, "a whole number from 1 to 1024, not '1.5'"),
        ("learning_rate", "fast", "a number from 0 to 1, not 'fast'"),
        ("learning_rate", float("inf"), "a number from 0 to 1, not 'inf'"),
        ("lr_scheduler", "magic", "one of constant, constant_with_warmup, linear"),
        ("resolution", "500x", "one number or WIDTH,HEIGHT of 64 to 4096 in steps of 8"),
        ("resolution", 33, "one number or WIDTH,HEIGHT"),
        ("flip_aug", "maybe", "true or false, not 'maybe'"),
        ("optimizer_type", "Lion", "one of AdamW, Adam, SGD"),
        ("sample_prompts", 5, "a list of at most 16 texts"),
        ("max_train_steps", True, "a whole number from 1"),
    ],
)
def test_a_wrong_value_is_told_with_its_rule(name: str, value: object, sentence: str) -> None:
    with pytest.raises(RequestFault) as fault:
        settings(**{name: value})
    assert f"config_params.{name} must be {sentence}" in str(fault.value)


def test_nothing_to_train_is_told() -> None:
    with pytest.raises(RequestFault, match="both are off"):
        settings(train_unet=False)


def test_eight_bit_optimizers_are_the_plain_ones() -> None:
    assert settings(optimizer_type="AdamW8bit").optimizer == "AdamW"
    assert settings(optimizer="8bit AdamW".replace("8bit ", "")).optimizer == "AdamW"
