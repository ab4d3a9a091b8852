"""File names: which are refused, and why."""

import pytest

from services.checkpoints.errors import UnusableFileName
from services.checkpoints.filenames import check_name, check_names


@pytest.mark.parametrize(
    "name", ["a.safetensors", "ü 模型 (v1.5)+x,y&z.safetensors", "A.SAFETENSORS", "ü" * 121 + ".safetensors"]
)
def test_usual_names_are_accepted(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("../a.safetensors", "path separator"),
        ("a/b.safetensors", "path separator"),
        ("a\\b.safetensors", "path separator"),
        (".a.safetensors", "begins with a dot"),
        (" a.safetensors", "spaces around"),
        ("a.safetensors ", "spaces around"),
        ("a\0.safetensors", r"a\x00.safetensors has control"),
        ("a\n.safetensors", "control"),
        ("a\u202e.safetensors", "invisible"),
        ("a" * 300 + ".safetensors", "too long for a file name (312 bytes, maximum 255)"),
        ("ü" * 122 + ".safetensors", "too long for a file name (256 bytes"),
        (
            "a.ckpt",
            "a.ckpt is a .ckpt file, which can run code when it is loaded: convert it to safetensors first",
        ),
        ("a.PT", "convert it to safetensors first"),
        ("a.pth", "convert it to safetensors first"),
        ("a.exe", "must be the name of a .safetensors file"),
        ("a", "must be the name of a .safetensors file"),
    ],
)
def test_other_names_are_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(UnusableFileName) as refused:
        check_name(name)
    assert why in str(refused.value)


def test_a_name_may_not_come_twice_in_whatever_composition() -> None:
    with pytest.raises(UnusableFileName, match="named twice"):
        check_names(["é.safetensors", "e\u0301.safetensors"])
