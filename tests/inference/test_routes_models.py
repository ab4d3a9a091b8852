"""Model lists, and URLs to put files of one's own."""

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import requests

from tests.inference.conftest import Service

UPLOAD = "/inference/generate-s3-presigned-url-for-uploading"
LISTS = {
    "get-texual-inversion-list": "embeddings",
    "get-lora-list": "Lora",
    "get-hypernetwork-list": "hypernetworks",
    "get-controlnet-model-list": "ControlNet",
}


@pytest.mark.parametrize("resource", ["inference", "inferences"])
@pytest.mark.parametrize(("name", "kind"), LISTS.items())
def test_a_list_asks_for_the_names_that_the_caller_may_use(
    service: Service, resource: str, name: str, kind: str
) -> None:
    service.others.answers["usable"] = lambda body: {"names": [f"{body['type']}-file"]}
    answer = service.get(f"/{resource}/{name}", permissions=("inference:list",))
    assert (answer.status_code, answer.json["data"]) == (200, [f"{kind}-file"])
    asked = {"username": "ann", "roles": ["artists"], "see_all": False, "type": kind}
    assert service.others.calls == [("usable", asked)]


def test_holders_of_checkpoint_all_see_every_model(service: Service) -> None:
    service.others.answers["usable"] = lambda body: {"names": ["all"] if body["see_all"] else []}
    assert service.get("/inference/get-lora-list").json["data"] == ["all"]


def test_a_list_needs_the_right_to_list(service: Service) -> None:
    assert service.get("/inference/get-lora-list", permissions=("inference:create",)).status_code == 403


def test_no_answer_of_checkpoints_is_told(service: Service) -> None:
    assert service.get("/inference/get-lora-list").status_code == 503


def upload_url(service: Service, user: str = "ann", **query: str) -> Any:
    headers = service.keys.user(user, permissions=("checkpoint:create",))
    return service.client.get(UPLOAD, query_string=query, headers=headers)


@pytest.mark.parametrize("key", [None, "config/ann/aigc.json", "config/ann/a folder/ü.json"])
def test_a_file_is_put_under_ones_own_prefix(service: Service, key: str | None) -> None:
    answer = upload_url(service, **({"key": key} if key else {}))
    assert answer.status_code == 200, answer.json
    requests.put(answer.json["data"], data=b"mine", timeout=10).raise_for_status()
    assert service.context.store.read(key or "config/ann/aigc.json", 10) == b"mine"


def test_the_platforms_bucket_may_be_named(service: Service) -> None:
    assert upload_url(service, s3_bucket_name=service.context.store.bucket).status_code == 200


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("config/ben/aigc.json", 403),
        ("config/annabel/aigc.json", 403),
        ("config/ann", 403),
        ("config/%61nn/x", 403),
        ("Config/ann/x", 403),
        ("out/1/result/image_0.png", 403),
        ("aigc.json", 403),
        ("config/ann/../ben/aigc.json", 400),
        ("config/ann/./x", 400),
        ("config/ann/", 400),
        ("config/ann//x", 400),
        ("/config/ann/x", 400),
        ("../config/ann/x", 400),
        ("config/ann/..", 400),
        ("config\\ann\\x", 400),
        ("config/ann/..\\..\\ben", 400),
        ("config/ann/\x00", 400),
        ("config/ann/a\nb", 400),
        ("config/ann/ ", 400),
        ("config/ann/" + "x" * 600, 400),
        ("s3://test/config/ann/x", 400),
    ],
)
def test_every_other_spelling_is_refused_with_a_sentence(service: Service, key: str, status: int) -> None:
    answer = upload_url(service, key=key)
    assert answer.status_code == status
    assert '"config/ann/' in answer.json["message"]


def test_another_bucket_is_refused(service: Service) -> None:
    answer = upload_url(service, s3_bucket_name="elsewhere")
    assert (answer.status_code, "elsewhere" in answer.json["message"]) == (403, True)


@pytest.mark.parametrize(
    ("user", "folder"),
    [("..", "%2E%2E"), ("a/b", "a%2Fb"), ("a%2Fb", "a%252Fb"), (".", "%2E"), ("a.b", "a.b")],
)
def test_no_name_of_a_user_leads_elsewhere(service: Service, user: str, folder: str) -> None:
    url = upload_url(service, user=user).json["data"]
    assert unquote(urlsplit(url).path).endswith(f"/config/{folder}/aigc.json")


def test_uploading_needs_the_right_to_create_checkpoints(service: Service) -> None:
    assert service.get(UPLOAD, permissions=("inference:all",)).status_code == 403
