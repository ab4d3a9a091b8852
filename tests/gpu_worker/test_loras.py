"""LoRAs in a checkpoint's weights: every format, several at once, and the base given back bit for bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.loading import load_checkpoint
from gpu_worker.lora_files import Lora, read_lora
from gpu_worker.loras import AppliedLoras
from gpu_worker.networks import Use

KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
DIFFUSERS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
ORIGINAL = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
KOHYA_TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


@pytest.fixture(scope="module")
def pipeline(models: Path, device: Device) -> Any:
    return load_checkpoint(models / "sd1.safetensors", "sd1", device)[0]


@pytest.fixture(scope="module")
def xl(models: Path, device: Device) -> Any:
    return load_checkpoint(models / "xl.safetensors", "xl", device)[0]


@pytest.fixture
def loras(pipeline: Any) -> Any:
    applied = AppliedLoras()
    yield applied
    applied.apply(pipeline, "sd1", [])


def layer(pipeline: Any) -> Tensor:
    found: Tensor = pipeline.unet.get_submodule(DIFFUSERS.removeprefix("unet.")).weight
    return found


def text_layer(pipeline: Any) -> Tensor:
    weight: Tensor = pipeline.text_encoder.encoder.layers[0].self_attn.q_proj.weight
    return weight


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def use(
    folder: Path, device: Device, tensors: Mapping[str, Tensor], name: str = "mine", **weights: Any
) -> Use:
    path = folder / f"{name}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    lora = read_lora(StoredFile(path, "0" * 64), name, device)[0]
    return Use(name, name, lambda: lora, **weights)


def everything(pipeline: Any) -> dict[str, Tensor]:
    parts = {"unet": pipeline.unet, "text": pipeline.text_encoder}
    return {f"{p}.{k}": t.clone() for p, model in parts.items() for k, t in model.state_dict().items()}


UP, DOWN = random(32, 4), random(4, 32, seed=2)
FORMS: dict[str, tuple[dict[str, Tensor], Tensor]] = {
    "kohya": ({f"{KOHYA}.lora_up.weight": UP, f"{KOHYA}.lora_down.weight": DOWN}, UP @ DOWN),
    "kohya with alpha": (
        {
            f"{KOHYA}.lora_up.weight": UP,
            f"{KOHYA}.lora_down.weight": DOWN,
            f"{KOHYA}.alpha": torch.tensor(2.0),
        },
        UP @ DOWN / 2,
    ),
    "original names": ({f"{ORIGINAL}.lora_up.weight": UP, f"{ORIGINAL}.lora_down.weight": DOWN}, UP @ DOWN),
    "convolutions": (
        {f"{KOHYA}.lora_up.weight": UP[..., None, None], f"{KOHYA}.lora_down.weight": DOWN[..., None, None]},
        UP @ DOWN,
    ),
    "peft": ({f"{DIFFUSERS}.lora_B.weight": UP, f"{DIFFUSERS}.lora_A.weight": DOWN}, UP @ DOWN),
    "diffusers": ({f"{DIFFUSERS}.lora.up.weight": UP, f"{DIFFUSERS}.lora.down.weight": DOWN}, UP @ DOWN),
    "old diffusers": (
        {
            DIFFUSERS.replace("to_q", "processor.to_q_lora.up.weight"): UP,
            DIFFUSERS.replace("to_q", "processor.to_q_lora.down.weight"): DOWN,
        },
        UP @ DOWN,
    ),
    "LoHa": (
        {
            f"{KOHYA}.hada_w1_a": UP,
            f"{KOHYA}.hada_w1_b": DOWN,
            f"{KOHYA}.hada_w2_a": UP + 1,
            f"{KOHYA}.hada_w2_b": DOWN + 1,
        },
        (UP @ DOWN) * ((UP + 1) @ (DOWN + 1)),
    ),
    "LoKr": (
        {
            f"{KOHYA}.lokr_w1": UP[:4],
            f"{KOHYA}.lokr_w2_a": UP[:8, :2],
            f"{KOHYA}.lokr_w2_b": DOWN[:2, :8],
            f"{KOHYA}.alpha": torch.tensor(1.0),
        },
        torch.kron(UP[:4], UP[:8, :2] @ DOWN[:2, :8]) / 2,
    ),
    "whole difference": ({f"{KOHYA}.diff": random(32, 32)}, random(32, 32)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_changes_the_weight_by_what_it_says(
    form: str, pipeline: Any, loras: AppliedLoras, tmp_path: Path, device: Device
) -> None:
    tensors, delta = FORMS[form]
    before = layer(pipeline).clone()
    loras.apply(pipeline, "sd1", [use(tmp_path, device, tensors, unet=0.5)])
    torch.testing.assert_close(layer(pipeline) - before, 0.5 * delta, rtol=1e-4, atol=1e-5)


def test_a_convolutions_core_is_read(
    pipeline: Any, loras: AppliedLoras, tmp_path: Path, device: Device
) -> None:
    name = "lora_unet_down_blocks_0_resnets_0_conv1"
    up, mid, down = random(32, 4, 1, 1), random(4, 4, 3, 3), random(4, 32, 1, 1)
    tensors = {f"{name}.lora_{side}.weight": t for side, t in (("up", up), ("mid", mid), ("down", down))}
    weight = pipeline.unet.down_blocks[0].resnets[0].conv1.weight
    before = weight.clone()
    loras.apply(pipeline, "sd1", [use(tmp_path, device, tensors)])
    expected = torch.einsum("or,rsab,si->oiab", up[..., 0, 0], mid, down[..., 0, 0])
    torch.testing.assert_close(weight - before, expected, rtol=1e-4, atol=1e-4)


def both_parts(seed: int = 1) -> dict[str, Tensor]:
    return {
        f"{KOHYA}.lora_up.weight": random(32, 4, seed=seed),
        f"{KOHYA}.lora_down.weight": random(4, 32, seed=seed + 10),
        f"{KOHYA_TEXT}.lora_up.weight": random(64, 4, seed=seed),
        f"{KOHYA_TEXT}.lora_down.weight": random(4, 64, seed=seed + 10),
    }


def test_unet_and_text_encoder_have_weights_of_their_own(
    pipeline: Any, loras: AppliedLoras, tmp_path: Path, device: Device
) -> None:
    unet, text = layer(pipeline).clone(), text_layer(pipeline).clone()
    loras.apply(pipeline, "sd1", [use(tmp_path, device, both_parts(), unet=0, text=1)])
    assert torch.equal(layer(pipeline), unet)
    assert not torch.equal(text_layer(pipeline), text)
    loras.apply(pipeline, "sd1", [use(tmp_path, device, both_parts(), unet=1, text=0)])
    assert not torch.equal(layer(pipeline), unet)
    assert torch.equal(text_layer(pipeline), text)


def test_the_first_dimensions_alone_can_be_used(
    pipeline: Any, loras: AppliedLoras, tmp_path: Path, device: Device
) -> None:
    before = layer(pipeline).clone()
    loras.apply(pipeline, "sd1", [use(tmp_path, device, FORMS["kohya"][0], rank=2)])
    torch.testing.assert_close(layer(pipeline) - before, UP[:, :2] @ DOWN[:2], rtol=1e-4, atol=1e-5)


def test_several_add_up_and_the_checkpoint_comes_back_bit_for_bit(
    pipeline: Any, loras: AppliedLoras, tmp_path: Path, device: Device
) -> None:
    base = everything(pipeline)
    one = use(tmp_path, device, both_parts(1), "one")
    two = use(tmp_path, device, both_parts(2), "two", unet=-0.7)
    loras.apply(pipeline, "sd1", [one])
    with_one = layer(pipeline).clone()
    loras.apply(pipeline, "sd1", [one, two])
    loras.apply(pipeline, "sd1", [two])
    torch.testing.assert_close(
        layer(pipeline) + with_one - base_of(base), with_both(pipeline, loras, one, two)
    )
    loras.apply(pipeline, "sd1", [one])
    assert torch.equal(layer(pipeline), with_one)
    loras.apply(pipeline, "sd1", [use(tmp_path, device, both_parts(3), "zero", unet=0, text=0)])
    assert all(torch.equal(base[key], tensor) for key, tensor in everything(pipeline).items())


def base_of(base: dict[str, Tensor]) -> Tensor:
    return base[DIFFUSERS + ".weight"]


def with_both(pipeline: Any, loras: AppliedLoras, one: Use, two: Use) -> Tensor:
    loras.apply(pipeline, "sd1", [one, two])
    return layer(pipeline).clone()


def test_sdxls_second_encoder_is_reached(xl: Any, tmp_path: Path, device: Device) -> None:
    name = "lora_te2_text_model_encoder_layers_1_mlp_fc1"
    weight = xl.text_encoder_2.text_model.encoder.layers[1].mlp.fc1.weight
    before = weight.clone()
    tensors = {f"{name}.lora_up.weight": random(96, 2), f"{name}.lora_down.weight": random(2, 128)}
    loras = AppliedLoras()
    loras.apply(xl, "xl", [use(tmp_path, device, tensors)])
    assert not torch.equal(weight, before)
    loras.apply(xl, "xl", [])
    assert torch.equal(weight, before)


WRONG = {
    "another width": {f"{KOHYA}.lora_up.weight": random(320, 4), f"{KOHYA}.lora_down.weight": random(4, 320)},
    "another layer": {
        f"{KOHYA.replace('blocks_0', 'blocks_9', 1)}.lora_up.weight": UP,
        f"{KOHYA.replace('blocks_0', 'blocks_9', 1)}.lora_down.weight": DOWN,
    },
    "half a pair": {f"{KOHYA}.lora_up.weight": UP},
    "sides that do not meet": {
        f"{KOHYA}.lora_up.weight": UP,
        f"{KOHYA}.lora_down.weight": random(5, 32),
    },
    "for SDXL": {
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_up.weight": random(640, 4),
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": random(4, 2048),
    },
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_lora_that_does_not_fit_is_named_and_leaves_nothing_behind(
    wrong: str, pipeline: Any, loras: AppliedLoras, tmp_path: Path, device: Device
) -> None:
    base = everything(pipeline)
    right = use(tmp_path, device, both_parts(), "right")
    loras.apply(pipeline, "sd1", [right])
    with pytest.raises(RequestFault, match="LoRA wrong does not fit checkpoint sd1") as refused:
        loras.apply(pipeline, "sd1", [right, use(tmp_path, device, WRONG[wrong], "wrong")])
    assert ("made for SDXL" in str(refused.value)) == (wrong == "for SDXL")
    assert all(torch.equal(base[key], tensor) for key, tensor in everything(pipeline).items())
    loras.apply(pipeline, "sd1", [right])
    assert not torch.equal(base_of(base), layer(pipeline))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"model.weight": UP}, 'its tensor "model.weight" means nothing to it'),
        ({f"{KOHYA}.lora_up.weight": UP, f"{KOHYA}.dora_scale": UP + 1}, "DoRA"),
    ],
)
def test_a_file_that_is_no_lora_is_refused(
    tensors: dict[str, Tensor], says: str, tmp_path: Path, device: Device
) -> None:
    with pytest.raises(RequestFault, match=says):
        use(tmp_path, device, tensors)


def test_the_hash_is_of_what_follows_the_header(tmp_path: Path, device: Device) -> None:
    """``addnet_hash_safetensors`` in kohya's tools: other metadata, the same hash."""
    hashes = set()
    for name in ("one", "another"):
        path = tmp_path / f"{name}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in both_parts().items()}, path, {"name": name})
        lora: Lora = read_lora(StoredFile(path, "0" * 64), name, device)[0]
        hashes.add(lora.short_hash)
    assert len(hashes) == 1
    assert len(hashes.pop()) == 12
