"""The program that converts pickles: what it makes of real files, and what it refuses."""

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from gpu_worker import convert_pickle  # noqa: E402
from gpu_worker.convert_pickle import Unconvertible, convert  # noqa: E402


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def converted(tmp_path: Path, value: Any, **options: Any) -> dict[str, Any]:
    """What the safetensors library reads of the converted file."""
    source, target = tmp_path / "a.pt", tmp_path / "a.safetensors"
    torch.save(value, source, **options)
    convert(source, target)
    return dict(load_file(target))


def test_tensors_keep_their_names_types_and_values(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 4).half(),
        "brain": torch.randn(5).bfloat16(),
        "whole": torch.arange(6),
        "flags": torch.tensor([True, False]),
        "turned": torch.arange(6.0).reshape(2, 3).t(),
        "one": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }
    found = converted(tmp_path, tensors)
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("modern", [True, False])
def test_both_formats_of_torch_are_read(tmp_path: Path, modern: bool) -> None:
    found = converted(tmp_path, {"a": torch.ones(2)}, _use_new_zipfile_serialization=modern)
    assert torch.equal(found["a"], torch.ones(2))


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"state_dict": {"a": torch.ones(1)}, "optimizer": {"b": torch.ones(1)}, "epoch": 3}, {"a"}),
        ({"params_ema": {"a": torch.ones(1)}, "params": {"b": torch.ones(1)}}, {"a"}),
        ({"string_to_param": {"*": torch.ones(2, 768)}, "name": "cat", "step": 9}, {"emb_params"}),
        (
            {320: ({"linear.0.weight": torch.ones(1)}, {"x": torch.ones(1)})},
            {"320.0.linear.0.weight", "320.1.x"},
        ),
        (torch.ones(3), {"tensor"}),
    ],
)
def test_tensors_are_found_where_programs_keep_them(tmp_path: Path, value: Any, names: set[str]) -> None:
    assert set(converted(tmp_path, value)) == names


def test_harmless_things_beside_the_tensors_are_passed_over(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    value = {"state_dict": {"a": torch.ones(1)}, "best": numpy.float64(0.5), "when": {"epoch": 3}}
    assert set(converted(tmp_path, value)) == {"a"}


def test_shared_tensors_are_written_each(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    found = converted(tmp_path, {"a": shared, "b": shared})
    assert torch.equal(found["a"], found["b"])


def refused(path: Path) -> str:
    with pytest.raises(Unconvertible) as reason:
        convert(path, path.with_suffix(".safetensors"))
    assert not path.with_suffix(".safetensors").exists()
    return str(reason.value)


@pytest.mark.parametrize("modern", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_runs_none(tmp_path: Path, modern: bool) -> None:
    path, mark = tmp_path / "evil.pt", tmp_path / "ran"
    torch.save({"a": torch.ones(1), "b": Evil(mark)}, path, _use_new_zipfile_serialization=modern)
    assert refused(path) == "it asks for more than tensors (posix.system); such code is never run"
    path.write_bytes(pickle.dumps(Evil(mark)))
    assert "such code is never run" in refused(path)
    assert not mark.exists()


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    torch.save({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    assert refused(path) == "its zip archive is damaged or truncated"


def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    assert "it may be a zip bomb" in refused(path)


def test_a_tensor_that_repeats_one_number_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.pt"
    torch.save({"a": torch.ones(1).expand(10**12)}, path)
    assert "its tensors claim 4000000000000 bytes" in refused(path)


@pytest.mark.parametrize("content", [b"", b"this is a letter", b"\x80\x02K\x05."])
def test_a_file_that_is_no_pickle_of_tensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.pt"
    path.write_bytes(content)
    assert refused(path) in {"it is no PyTorch file, or damaged", "it holds no tensors"}


def test_tensors_that_safetensors_cannot_hold_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    torch.save({"odd": torch.ones(2, dtype=torch.complex128)}, path)
    assert refused(path) == "safetensors has no form for its tensor odd (torch.complex128)"


def test_the_program_bounds_itself_and_answers_in_json(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    arguments = [str(tmp_path / "a.pt"), str(tmp_path / "a.safetensors"), "a.pt"]
    # -I: neither the working directory nor the environment has a say in what is imported.
    done = subprocess.run(
        [sys.executable, "-I", convert_pickle.__file__, *arguments],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, '{"tensors": 1}')
