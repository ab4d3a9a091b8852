"""SageMaker's front, as a real process on a real engine."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from gpu_worker.invocation import MAX_BODY_BYTES
from tests.gpu_worker.platform import Platform
from tests.gpu_worker.served import Served, served

GOOD: dict[str, Any] = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "seed": 5, "batch_size": 2}


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("serve")) as running:
        yield running


Document = dict[str, Any]
FROM_DISK = {"type": "VAE", "name": "v", "id": "i", "url": "file:///etc/passwd", "size": 1}


@pytest.fixture
def document(platform: Platform, models: Path) -> Callable[..., Document]:
    """Makes an invocation whose objects lie on the fake platform."""

    def make(job_id: str = "job-1", images: int = 2, **changes: Any) -> Document:
        platform.objects[f"params/{job_id}"] = json.dumps(GOOD).encode()
        names = [f"image_{position}.png" for position in range(images)] + [f"{job_id}_param.json"]
        return {
            "id": job_id,
            "attempt": 1,
            "task_type": "txt2img",
            "request_id": "request-1",
            "models": [platform.put_file(models / "sd1.safetensors")],
            "parameters_url": f"{platform.url}/s3/params/{job_id}",
            "seed": 1234,
            "uploads": {name: f"{platform.url}/s3/out/{job_id}/{name}" for name in names},
            "expires_at": time.time() + 100,
        } | changes

    return make


def test_ping_refuses_while_the_engine_loads(container: Served) -> None:
    assert 503 in container.first_pings
    assert container.ping() == 200


def test_an_invocation_makes_the_pictures_and_tells_what_it_made(
    container: Served, document: Callable[..., Document], platform: Platform
) -> None:
    answer = container.invoke(document())
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["id"], told["attempt"], told["image_names"]) == ("job-1", 1, ["image_0.png", "image_1.png"])
    assert told["info"]["all_seeds"] == [5, 6]
    assert "prompt" not in told["info"]
    assert list(told["timings"]) == sorted(told["timings"], key=told["timings"].__getitem__)
    assert {"first_step_at", "last_step_at", "uploaded_at"} <= set(told["timings"])
    picture = Image.open(io.BytesIO(platform.objects["out/job-1/image_1.png"]))
    assert picture.size == (64, 64)
    assert "Seed: 6" in picture.text["parameters"]
    assert json.loads(platform.objects["out/job-1/job-1_param.json"])["images"] == told["image_names"]


def test_parameters_may_come_along(container: Served, document: Callable[..., Document]) -> None:
    inside = document(parameters=GOOD | {"batch_size": 1, "s_tmax": None})
    del inside["parameters_url"]
    assert container.invoke(inside).json()["image_names"] == ["image_0.png"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parameters": {"steps": 0}}, "steps must be a whole number from 1 to"),
        ({"parameters": GOOD | {"n_iter": 2}}, "the job makes 5 files, and uploads has no address for"),
        ({"task_type": "no such task"}, "task_type 'no such task' is not supported"),
        ({"task_type": 5}, "task_type must be text of 1 to 255 characters, not 5"),
        ({"id": "x" * 65}, "id must be text of 1 to 64 characters"),
        ({"attempt": True}, "attempt must be a whole number from 1 to 1000000, not true"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"models": "all"}, "models must be a list"),
        ({"models": [5]}, "models[0] must be an object, not 5"),
        ({"models": [FROM_DISK]}, "models[0].url must begin with http:// or https://"),
        ({"parameters_url": "file:///etc/passwd"}, "parameters_url must begin with http:// or https://"),
        ({"parameters": [1]}, "parameters must be an object, not a list of 1"),
        ({"uploads": {"image_0.png": 5}}, "uploads.image_0.png must be text"),
        ({"uploads": None}, "uploads must be an object"),
        ({"expires_at": "soon"}, "expires_at must be a time in epoch seconds, not 'soon'"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_honoured_is_400_with_the_sentence(
    container: Served, document: Callable[..., Document], changes: Document, sentence: str
) -> None:
    answer = container.invoke(document() | changes)
    assert (answer.status_code, answer.json()["kind"]) == (400, "request"), answer.text
    assert sentence in answer.json()["message"]


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def test_every_body_is_survived(container: Served, document: Callable[..., Document]) -> None:
    whole = json.dumps(document()).encode()
    bodies = [b"", b"{", b"null", b"[]", b"5", b"\x80\x04pickle.", b"\xff\xfe", deep(100_000), whole[:-1]]
    bodies += [whole.replace(b'"seed": 1234', b'"seed": 1e999'), b'{"parameters": {"a": ' + deep(500) + b"}}"]
    for body in bodies:
        answer = container.invoke(body)
        assert (answer.status_code, answer.json()["kind"]) == (400, "request"), body[:40]
    assert container.invoke(bytes(MAX_BODY_BYTES + 1)).status_code == 413
    assert requests.get(container.url + "/invocations", timeout=10).status_code == 405
    assert requests.get(container.url + "/else", timeout=10).json()["kind"] == "request"
    assert container.invoke(document()).status_code == 200


def test_storage_that_does_not_answer_is_passing(
    container: Served, document: Callable[..., Document], platform: Platform
) -> None:
    platform.broken["PUT"] = 1000
    answer = container.invoke(document())
    assert (answer.status_code, answer.json()["kind"]) == (503, "passing")
    platform.broken.clear()
    assert container.invoke(document()).status_code == 200


def test_an_attempt_whose_time_is_over_is_not_computed(
    container: Served, document: Callable[..., Document], platform: Platform
) -> None:
    answer = container.invoke(document("late", expires_at=time.time() - 1))
    assert (answer.status_code, answer.json()["kind"]) == (503, "passing")
    assert "out/late/image_0.png" not in platform.objects


def test_a_second_invocation_waits_for_the_first(
    container: Served, document: Callable[..., Document]
) -> None:
    answers: dict[str, Document] = {}

    def invoke(name: str) -> None:
        answers[name] = container.invoke(document(name)).json()

    threads = [threading.Thread(target=invoke, args=(f"job-{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = sorted(
        (told["timings"]["claimed_at"], told["timings"]["decoded_at"]) for told in answers.values()
    )
    assert len(times) == 3
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(times))


FAILS = """
import sys
sys.argv = ["gpu_worker", "serve"]
from gpu_worker import errors, worker
def fail(context):
    raise errors.MachineFault("CUDA error: the GPU has fallen off the bus")
worker.TASKS["txt2img"] = fail
import runpy
runpy.run_module("gpu_worker", run_name="__main__")
"""


def test_a_machine_fault_is_answered_and_then_the_process_ends(
    document: Callable[..., Document], tmp_path: Path
) -> None:
    with served(tmp_path, ("-c", FAILS)) as container:
        answer = container.invoke(document())
        assert (answer.status_code, answer.json()["kind"]) == (500, "machine")
        assert "fallen off the bus" in answer.json()["message"]
        assert container.process.wait(timeout=60) == 3


def test_a_stop_lets_the_job_end(document: Callable[..., Document], tmp_path: Path) -> None:
    with served(tmp_path) as container:
        answers = []
        body = document("last", parameters=GOOD | {"steps": 40})
        thread = threading.Thread(target=lambda: answers.append(container.invoke(body)))
        thread.start()
        while container.ping() == 200 and not _is_computing(tmp_path):
            time.sleep(0.05)
        container.process.terminate()
        thread.join()
        assert answers[0].status_code == 200
        assert container.process.wait(timeout=60) == 0


def _is_computing(folder: Path) -> bool:
    return "invocation begun" in (folder / "serve.log").read_text()
