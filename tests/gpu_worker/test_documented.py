"""docs/generation.md: every parameter that the worker knows has a row, and every row a test that exists."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

from gpu_worker.infotext_request import FIELDS
from gpu_worker.limits import LIMITS

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "generation.md"
NAME = re.compile(r"`([^`]+)`")
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
# Section 3 of the contract.
CONTRACT = [
    "prompt",
    "negative_prompt",
    "styles",
    "seed",
    "subseed",
    "subseed_strength",
    "seed_resize_from_h",
    "seed_resize_from_w",
    "sampler_name",
    "sampler_index",
    "scheduler",
    "batch_size",
    "n_iter",
    "steps",
    "cfg_scale",
    "width",
    "height",
    "restore_faces",
    "tiling",
    "eta",
    "denoising_strength",
    "s_churn",
    "s_tmax",
    "s_tmin",
    "s_noise",
    "s_min_uncond",
    "override_settings",
    "override_settings.sd_model_checkpoint",
    "override_settings.sd_vae",
    "override_settings.CLIP_stop_at_last_layers",
    "enable_hr",
    "hr_scale",
    "hr_upscaler",
    "hr_second_pass_steps",
    "hr_resize_x",
    "hr_resize_y",
    "hr_sampler_name",
    "hr_prompt",
    "hr_negative_prompt",
    "refiner_checkpoint",
    "refiner_switch_at",
    "init_images",
    "mask",
    "mask_blur",
    "inpainting_fill",
    "inpaint_full_res",
    "resize_mode",
    "image_cfg_scale",
    "script_name",
    "script_args",
    "alwayson_scripts",
    "send_images",
    "save_images",
]


@cache
def rows() -> dict[str, str]:
    """What is said last in the row of each parameter."""
    found = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            cells = re.split(r"(?<!\\) \| ", line.strip("| "))
            assert len(cells) == 3, f"a row has three cells: {line}"
            for name in NAME.findall(cells[0]):
                found[name] = cells[2]
    return found


@cache
def defined_in(file: str) -> set[str]:
    path = ROOT / "tests" / (file if "/" in file else f"gpu_worker/{file}")
    assert path.exists(), f"{file} is named in docs/generation.md and does not exist"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def known() -> set[str]:
    """Every name in a set KNOWN… of a module of the worker."""
    names: set[str] = set()
    for path in (ROOT / "gpu_worker").glob("*.py"):
        if not re.search(r"^KNOWN\w* = frozenset", path.read_text(encoding="utf-8"), re.MULTILINE):
            continue
        module = importlib.import_module(f"gpu_worker.{path.stem}")
        for name, value in vars(module).items():
            if name.startswith("KNOWN") and isinstance(value, frozenset):
                prefix = "override_settings." if name == "KNOWN_SETTINGS" else ""
                names |= {prefix + key for key in value}
    return names


def test_every_parameter_of_the_contract_has_a_row() -> None:
    assert [name for name in CONTRACT if name not in rows()] == []


def test_every_parameter_that_the_worker_knows_has_a_row() -> None:
    assert "hr_scale" in known()
    assert sorted(known() - set(rows())) == []


def test_every_limited_parameter_has_a_row() -> None:
    names = {name if name.startswith("extras.") else name.rpartition(".")[2] for name in LIMITS}
    settings = {name.rpartition(".")[2] for name in rows() if name.startswith("override_settings.")}
    assert sorted(names - set(rows()) - settings) == []


def test_everything_that_an_infotext_may_say_has_a_row() -> None:
    assert sorted({key for key, _ in FIELDS.values()} - set(rows())) == []


def test_every_row_names_tests_that_exist() -> None:
    for parameter, cell in rows().items():
        named = TEST.findall(cell)
        assert named, f"{parameter} has no test"
        for file, test in named:
            assert test in defined_in(file), f"{parameter}: {file}::{test} does not exist"
