"""Small pictures of what is being made."""

import base64
import io
from typing import Any

import pytest
import requests
from PIL import Image

from services.inference.previews import LARGEST_PREVIEW
from tests.inference.conftest import Service


def picture(kind: str = "JPEG", colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, kind)
    return buffer.getvalue()


def send(service: Service, job: dict[str, Any], content: bytes, worker: str = "worker-1") -> Any:
    text = base64.b64encode(content).decode()
    place = {"attempt": job["attempt"], "step": 3, "image": 0, "picture": text}
    return service.work(f"jobs/{job['id']}/preview", worker, **place)


def shown(service: Service, job: dict[str, Any]) -> Any:
    return service.get(f"/inferences/{job['id']}").json["data"]["preview_presigned_url"]


def test_a_worker_hears_whether_previews_are_wanted(service: Service) -> None:
    service.started(preview=True)
    assert service.claimed()["preview"] is True
    service.started()
    assert service.claimed()["preview"] is False


@pytest.mark.parametrize(("kind", "media_type"), [("JPEG", "image/jpeg"), ("PNG", "image/png")])
def test_the_last_preview_is_shown_until_the_pictures_are_there(
    service: Service, kind: str, media_type: str
) -> None:
    service.started(preview=True)
    job = service.claimed()
    assert shown(service, job) is None
    for colour in ("red", "blue"):
        assert send(service, job, picture(kind, colour)).status_code == 200
    fetched = requests.get(shown(service, job), timeout=10)
    assert (fetched.content, fetched.headers["Content-Type"]) == (picture(kind, "blue"), media_type)
    service.work(f"jobs/{job['id']}/complete", attempt=job["attempt"], images=["image_0.png"])
    assert shown(service, job) is None


def test_a_preview_renews_the_lease(service: Service) -> None:
    job_id = service.started(preview=True)
    job = service.claimed()
    service.expire_lease(job_id)
    send(service, job, picture())
    assert service.context.running.requeue_expired() == 0


def test_the_next_attempt_begins_without_a_preview(service: Service) -> None:
    service.started(preview=True)
    job = service.claimed()
    send(service, job, picture())
    service.expire_lease(job["id"])
    service.claimed("worker-2")
    assert shown(service, job) is None


def test_previews_of_an_attempt_that_is_over_change_nothing(service: Service) -> None:
    service.started(preview=True)
    late = service.claimed()
    service.expire_lease(late["id"])
    job = service.claimed("worker-2")
    send(service, job, picture(colour="blue"), "worker-2")
    for worker, attempt in (("worker-1", 1), ("worker-1", 2), ("worker-2", 1)):
        assert send(service, late | {"attempt": attempt}, picture(), worker).status_code == 409
    assert requests.get(shown(service, job), timeout=10).content == picture(colour="blue")


def test_a_preview_goes_with_its_job(service: Service) -> None:
    service.started(preview=True)
    job = service.claimed()
    send(service, job, picture())
    url = shown(service, job)
    assert service.delete("/inferences", {"inference_id_list": [job["id"]]}).status_code == 204
    assert requests.get(url, timeout=10).status_code == 404


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<svg onload=alert(1)>", "picture is neither a JPEG nor a PNG"),
        (b"\xff\xd8\xff" + bytes(LARGEST_PREVIEW), "is too long"),
    ],
    ids=["another kind", "too large"],
)
def test_what_is_no_small_picture_is_refused(service: Service, content: bytes, sentence: str) -> None:
    service.started(preview=True)
    job = service.claimed()
    answer = send(service, job, content)
    assert answer.status_code == 400
    assert sentence in answer.json["message"]
    assert shown(service, job) is None


def test_what_is_no_base64_is_refused(service: Service) -> None:
    service.started(preview=True)
    job = service.claimed()
    answer = service.work(f"jobs/{job['id']}/preview", attempt=1, picture="né")
    assert (answer.status_code, answer.json["message"]) == (400, "picture is not base64")
