"""Merging: what arithmetic on the weights says, in bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gpu_worker.errors import RequestFault
from gpu_worker.training.merge import Recipe, Source, blocks, header_of, in_parts, metadata_of, plan

ROOT = Path(__file__).resolve().parents[3]


def file_of(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors, path, metadata={"format": "pt", "sdfleet.sample_size": "8"})
    return path


def merged(
    target: Path, method: str, multiplier: float, *paths: Path, **more: object
) -> dict[str, torch.Tensor]:
    """Merge the files as the worker does, without a service."""
    half = bool(more.get("half", False))
    vae = more.get("vae")
    sources = [Source(path, path.name, f"hash-{path.name}") for path in paths]
    baked = Source(vae, "vae", "v") if isinstance(vae, Path) else None
    recipe = Recipe(method, multiplier, half, sources, baked)
    planned = plan(recipe)
    with target.open("wb") as out:
        out.write(header_of(planned, metadata_of(recipe)))
        for one in planned:
            for block in blocks(recipe, one):
                out.write(block)
    return load_file(target)


@pytest.fixture()
def three(tmp_path: Path) -> list[Path]:
    made = []
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        made.append(
            file_of(
                tmp_path / f"{number}.safetensors",
                weight=torch.randn(30, 20, generator=generator),
                half=torch.randn(50, generator=generator).half(),
                brain=torch.randn(50, generator=generator).bfloat16(),
                ids=torch.arange(5) + number,
            )
        )
    return made


def test_a_weighted_sum_is_what_arithmetic_says(tmp_path: Path, three: list[Path]) -> None:
    result = merged(tmp_path / "out.safetensors", "Weighted sum", 0.3, *three[:2])
    a, b = (load_file(path) for path in three[:2])
    for name in ("weight", "half", "brain"):
        expected = (a[name].float() * 0.7 + b[name].float() * 0.3).to(a[name].dtype)
        assert result[name].dtype == a[name].dtype
        assert torch.allclose(result[name].float(), expected.float(), atol=1e-6), name
    assert torch.equal(result["ids"], a["ids"])


def test_a_difference_is_added_in_half_precision(tmp_path: Path, three: list[Path]) -> None:
    result = merged(tmp_path / "out.safetensors", "Add difference", 0.5, *three, half=True)
    a, b, c = (load_file(path) for path in three)
    expected = (a["weight"] + (b["weight"] - c["weight"]) * 0.5).half()
    assert torch.equal(result["weight"], expected)
    assert {tensor.dtype for name, tensor in result.items() if name != "ids"} == {torch.float16}


def test_provenance_stands_in_the_header(tmp_path: Path, three: list[Path]) -> None:
    merged(tmp_path / "out.safetensors", "Weighted sum", 0.25, *three[:2])
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        said = file.metadata()
    recipe = json.loads(said["sd_merge_recipe"])
    assert (recipe["interp_method"], recipe["multiplier"]) == ("Weighted sum", 0.25)
    assert recipe["primary_model_hash"] == "hash-0.safetensors"
    assert said["sdfleet.sample_size"] == "8"


def test_a_vae_is_baked_in(tmp_path: Path) -> None:
    name = "first_stage_model.decoder.conv_in.weight"
    model = file_of(tmp_path / "m.safetensors", **{name: torch.zeros(4, 3), "other": torch.ones(2)})
    vae = file_of(tmp_path / "v.safetensors", **{"decoder.conv_in.weight": torch.full((4, 3), 7.0)})
    result = merged(tmp_path / "out.safetensors", "No interpolation", 0, model, vae=vae)
    assert torch.equal(result[name], torch.full((4, 3), 7.0))
    assert torch.equal(result["other"], torch.ones(2))


def test_what_the_second_lacks_stays_and_other_shapes_are_told(tmp_path: Path) -> None:
    a = file_of(tmp_path / "a.safetensors", x=torch.ones(3), y=torch.ones(3))
    b = file_of(tmp_path / "b.safetensors", x=torch.zeros(3), z=torch.ones(3))
    result = merged(tmp_path / "out.safetensors", "Weighted sum", 1.0, a, b)
    assert sorted(result) == ["x", "y"]
    assert torch.equal(result["x"], torch.zeros(3))
    wrong = file_of(tmp_path / "w.safetensors", x=torch.zeros(4))
    with pytest.raises(RequestFault, match=r'a.safetensors and w.safetensors cannot be merged: tensor "x"'):
        merged(tmp_path / "out.safetensors", "Weighted sum", 0.5, a, wrong)


def test_values_that_half_precision_cannot_hold_are_told(tmp_path: Path) -> None:
    a, b = (file_of(tmp_path / f"{n}.safetensors", x=torch.full((3,), 1e6)) for n in "ab")
    with pytest.raises(RequestFault, match='tensor "x" has values that F16 cannot hold'):
        merged(tmp_path / "out.safetensors", "Weighted sum", 0.5, a, b, half=True)


def test_parts_have_the_asked_size() -> None:
    pieces = [b"ab", b"cdefg", b"", b"h"]
    assert [bytes(part) for part in in_parts(iter(pieces), 3)] == [b"abc", b"def", b"gh"]


@pytest.mark.slow
def test_two_files_of_2_gb_are_merged_in_less_than_a_gigabyte_and_a_half(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "bench.merge_memory", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=220,
        check=True,
    )
    found = json.loads(told.stdout.strip().splitlines()[-1])
    assert found["source_bytes"] == [2_000_000_000, 2_000_000_000]
    assert found["peak_bytes"] < 1_500_000_000
