"""How a container of the worker chooses its GPU, with programs in place of nvidia-smi and Python."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).resolve().parents[2] / "gpu_worker" / "entrypoint.sh"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture()
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the entry point on a machine with two GPUs; the worker tells its GPU, and waits."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in {
        "nvidia-smi": "#!/bin/sh\nprintf 'GPU-a\\nGPU-b\\n'\n",
        "python": '#!/bin/sh\necho "$* on ${CUDA_VISIBLE_DEVICES:-nothing chosen}"\nread -r _ || true\n',
    }.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
        path = f"{programs}:{os.environ['PATH']}"
        process = subprocess.Popen(
            ["sh", str(ENTRYPOINT), *arguments],
            env={"PATH": path, "WORKER_GPU_LOCKS": str(tmp_path / "locks")} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_each_worker_of_a_machine_takes_a_gpu_of_its_own_and_leaves_it_with_its_end(start: Start) -> None:
    first = start()
    assert said(first) == "-m gpu_worker on GPU-a"
    second = start()
    assert said(second) == "-m gpu_worker on GPU-b"
    third = start()
    assert third.wait(60) == 2
    assert third.stderr is not None and "every GPU of this machine has a worker" in third.stderr.read()

    first.kill()
    first.wait(60)
    assert said(start()) == "-m gpu_worker on GPU-a"


def test_a_gpu_that_was_chosen_already_is_kept(start: Start) -> None:
    assert said(start(CUDA_VISIBLE_DEVICES="1")) == "-m gpu_worker on 1"


def test_on_sagemaker_the_argument_says_what_to_do(start: Start) -> None:
    assert said(start("serve")) == "-m gpu_worker serve on nothing chosen"
