"""Creating checkpoints that are uploaded: what a request must say, and what it gets."""

import re
import uuid
from typing import Any

import pytest

from services.common.checkpoint_types import CHECKPOINT_TYPES
from tests.checkpoints.conftest import Service, one_file, unique


def test_creating_gives_a_url_for_each_part(service: Service) -> None:
    name = unique()
    answer = service.call(
        "POST",
        "/checkpoints",
        one_file(
            filenames=[{"filename": name, "parts_number": "3"}], params={"message": "hi", "creator": "ann"}
        ),
    )
    assert (answer.status_code, answer.json["statusCode"]) == (201, 201)
    checkpoint = answer.json["data"]["checkpoint"]
    folder = f"Lora/checkpoint/custom/{uuid.UUID(checkpoint['id'])}"
    bucket = service.parts.storage.bucket
    assert (checkpoint["type"], checkpoint["status"]) == ("Lora", "Initial")
    assert checkpoint["s3_location"] == f"s3://{bucket}/{folder}"
    params = checkpoint["params"]
    assert (params["message"], params["creator"]) == ("hi", "ann")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", params["created"])
    upload = params["multipart_upload"][name]
    assert (upload["bucket"], upload["key"]) == (bucket, f"{folder}/{name}")
    urls = answer.json["data"]["s3PresignUrl"][name]
    assert [re.search(r"partNumber=(\d+)", url).group(1) for url in urls] == ["1", "2", "3"]  # type: ignore[union-attr]
    assert all(upload["upload_id"] in url for url in urls)


@pytest.mark.parametrize("kind", CHECKPOINT_TYPES)
def test_every_type_of_the_contract_can_be_created(service: Service, kind: str) -> None:
    assert service.begin(checkpoint_type=kind)["checkpoint"]["type"] == kind


def wrong_type(found: str, allowed: str) -> str:
    return f'instance type ({found}) does not match any allowed primitive type (allowed: ["{allowed}"])'


def files(*names: str, **changes: Any) -> dict[str, Any]:
    return one_file(filenames=[{"filename": name, "parts_number": 1} | changes for name in names])


PICKLE = "a.pkl is a .pkl file, which can run code when it is loaded: convert it to safetensors first"
LISTED = ",".join(f'"{one}"' for one in CHECKPOINT_TYPES)
TOO_FEW = "array is too short: must have at least 1 elements but instance has 0 elements"
TOO_LOW = "numeric instance is lower than the required minimum (minimum: 1, found: 0)"
TOO_HIGH = "numeric instance is greater than the required maximum (maximum: 10000, found: 10001)"
CONTROL = "a\\x00.safetensors has control or invisible characters in its file name"
A = "a.safetensors"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("nonsense", "Invalid request body"),
        ([], "Invalid request body"),
        ({}, 'object has missing required properties (["checkpoint_type","filenames"])'),
        (one_file(checkpoint_type=5), wrong_type("integer", "string")),
        (
            one_file(checkpoint_type="lora"),
            f'instance value ("lora") not found in enum (possible values: [{LISTED}])',
        ),
        (one_file(filenames=[]), TOO_FEW),
        (one_file(filenames={}), wrong_type("object", "array")),
        (one_file(filenames=["a"]), wrong_type("string", "object")),
        (one_file(filenames=[{}]), 'object has missing required properties (["filename","parts_number"])'),
        (files(""), 'string "" is too short (length: 0, required minimum: 1)'),
        (files(A, parts_number=0), TOO_LOW),
        (files(A, parts_number=10_001), TOO_HIGH),
        (files(A, parts_number="many"), wrong_type("string", "integer")),
        (files("a.pkl"), PICKLE),
        (files("../a.safetensors"), "../a.safetensors has a path separator in its file name"),
        (files("a\0.safetensors"), CONTROL),
        (files(A, A), "a.safetensors is named twice in one request"),
        (
            files(*(f"{n}.safetensors" for n in range(6)), parts_number=10_000),
            "the files of one request have at most 50000 parts together",
        ),
        (files(A, sha256="abc"), "a sha256 is 64 hexadecimal digits"),
        (one_file(params={"a": {"$ref": "x", "$id": 1}}), "Invalid request body"),
        (one_file(params={"a": "b" * 70_000}), "params is too large (70009 bytes, maximum 65536)"),
        (one_file(params=[]), wrong_type("array", "object")),
        (one_file(params={"creator": 7}), wrong_type("integer", "string")),
        (one_file(allowed_roles_or_users="all"), wrong_type("string", "array")),
        (one_file(allowed_roles_or_users=[""]), 'string "" is too short (length: 0, required minimum: 1)'),
        (one_file(urls=["https://example.org/a.safetensors"]), "give filenames or urls, not both"),
    ],
)
def test_a_wrong_body_creates_nothing_and_says_why(service: Service, body: Any, message: str) -> None:
    before = service.parts.database["checkpoints"].count_documents({})
    answer = service.call("POST", "/checkpoints", body)
    assert (answer.status_code, answer.json["message"]) == (400, message)
    assert service.parts.database["checkpoints"].count_documents({}) == before


def test_a_name_that_a_live_checkpoint_has_is_refused(service: Service) -> None:
    name = unique()
    first = service.begin(name)
    bob = service.user("bob", ("others",))
    answer = service.call(
        "POST",
        "/checkpoints",
        one_file(
            filenames=[{"filename": unique(), "parts_number": 1}, {"filename": name, "parts_number": 1}]
        ),
        bob,
    )
    sentence = f"{name} already exists, please use another or rename/delete exists"
    assert (answer.status_code, answer.json["message"]) == (400, sentence)
    service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [first["checkpoint"]["id"]]})
    assert service.begin(name, who=bob)["checkpoint"]["status"] == "Initial"


def test_a_refused_request_claims_none_of_its_names(service: Service) -> None:
    taken, free = unique(), unique()
    service.begin(taken)
    both = [{"filename": name, "parts_number": 1} for name in (free, taken)]
    assert service.call("POST", "/checkpoints", one_file(filenames=both)).status_code == 400
    assert service.begin(free)["checkpoint"]["name"] == [free]


def test_naming_another_creator_needs_the_right_to_act_for_them(service: Service) -> None:
    body = one_file(params={"creator": "bob"})
    answer = service.call("POST", "/checkpoints", body)
    assert (answer.status_code, answer.json["message"]) == (
        403,
        'acting for the user "bob" needs the permission user:all',
    )
    allowed = service.call(
        "POST", "/checkpoints", body, service.user(permissions=("checkpoint:create", "user:all"))
    )
    checkpoint = allowed.json["data"]["checkpoint"]
    assert checkpoint["params"]["creator"] == "bob"
    assert checkpoint["allowed_roles_or_users"] == ["artists", "critics"]  # bob's roles, not the caller's
    assert service.call("GET", f"/checkpoints/{checkpoint['id']}", who=service.user("bob")).status_code == 200


def test_a_creator_who_does_not_exist_is_refused(service: Service) -> None:
    body = one_file(params={"creator": "nobody"})
    answer = service.call("POST", "/checkpoints", body, service.admin())
    assert (answer.status_code, answer.json["message"]) == (400, 'user: "nobody" not exist')
    checkpoint_id = service.begin()["checkpoint"]["id"]
    answer = service.call(
        "PUT", f"/checkpoints/{checkpoint_id}", {"params": {"creator": "nobody"}}, service.admin()
    )
    assert (answer.status_code, answer.json["message"]) == (400, 'user: "nobody" not exist')


def test_a_repeated_request_with_an_idempotency_key_creates_once(service: Service) -> None:
    body, key = one_file(), {"Idempotency-Key": uuid.uuid4().hex}
    first, second = (service.call("POST", "/checkpoints", body, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json["data"]["checkpoint"] == second.json["data"]["checkpoint"]
    other = service.call("POST", "/checkpoints", one_file(), headers=key)
    assert (other.status_code, other.json["message"]) == (
        409,
        "this Idempotency-Key was used for another request",
    )
    assert service.call("POST", "/checkpoints", body, service.user("bob"), headers=key).status_code == 400
