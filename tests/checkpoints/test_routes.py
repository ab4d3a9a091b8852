"""The routes of checkpoints as clients call them."""

import re
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from services.common.checkpoint_types import CHECKPOINT_TYPES
from services.common.identity import undeclared_routes
from tests.checkpoints.conftest import PART, Service, put_parts, safetensors, unique

EVERY_ROUTE = [
    ("POST", "/checkpoints", "checkpoint:create"),
    ("GET", "/checkpoints", "checkpoint:list"),
    ("DELETE", "/checkpoints", "checkpoint:delete"),
    ("GET", "/checkpoints/x", "checkpoint:list"),
    ("PUT", "/checkpoints/x", "checkpoint:update"),
    ("GET", "/checkpoints/x/uploads", "checkpoint:update"),
]
VALID: dict[tuple[str, str], Any] = {
    ("POST", "/checkpoints"): {
        "checkpoint_type": "Lora",
        "filenames": [{"filename": "never.safetensors", "parts_number": 1}],
    },
    ("DELETE", "/checkpoints"): {"checkpoint_id_list": ["x"]},
    ("PUT", "/checkpoints/x"): {"status": "Disabled"},
}


def one_file(**changes: Any) -> dict[str, Any]:
    file = {"filename": unique(), "parts_number": 1}
    return {"checkpoint_type": "Lora", "filenames": [file], "params": {}} | changes


# What every route asks of its caller


def test_every_route_declares_its_right(service: Service) -> None:
    assert list(undeclared_routes(service.app)) == []


@pytest.mark.parametrize(("method", "path", "_right"), EVERY_ROUTE)
def test_without_a_token_nothing_is_answered(service: Service, method: str, path: str, _right: str) -> None:
    for token in (
        {"X-Internal-Token": ""},
        {"X-Internal-Token": "x.y.z"},
        service.keys.service(),
        service.keys.worker(),
    ):
        answer = service.call(method, path, VALID.get((method, path)), who=token)
        assert (answer.status_code, answer.json) == (401, {"statusCode": 401, "message": "Unauthorized"})


@pytest.mark.parametrize(("method", "path", "right"), EVERY_ROUTE)
def test_each_route_needs_its_own_right(service: Service, method: str, path: str, right: str) -> None:
    others = tuple(
        f"checkpoint:{one}" for one in ("list", "create", "update", "delete") if not right.endswith(one)
    )
    without = service.user(permissions=others)
    answer = service.call(method, path, VALID.get((method, path)), who=without)
    assert (answer.status_code, answer.json["message"]) == (403, f"this needs the permission {right}")


# Creation


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


def test_a_body_that_is_no_json_is_refused(service: Service) -> None:
    for method, path in VALID:
        answer = service.app.test_client().open(path, method=method, data=b"{", headers=service.user())
        assert (answer.status_code, answer.json["message"]) == (400, "Invalid request body")


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


# Completion


def test_an_upload_of_three_parts_becomes_active_and_holds_the_bytes(service: Service) -> None:
    content = safetensors(2 * PART + 12_345)
    uploaded = service.upload(content)
    assert len(uploaded.tags) == 3
    answer = service.complete(uploaded)
    assert answer.status_code == 200
    checkpoint = answer.json["checkpoint"]
    assert checkpoint == answer.json["data"]["checkpoint"]
    assert (checkpoint["status"], checkpoint["name"]) == ("Active", [uploaded.name])
    assert "multipart_upload" not in checkpoint["params"]
    key = f"Lora/checkpoint/custom/{uploaded.id}/{uploaded.name}"
    assert service.parts.storage.objects.read(key, 10**9) == content


def test_etags_count_with_and_without_quotes_and_in_any_order(service: Service) -> None:
    uploaded = service.upload(safetensors(PART))
    tags = [
        {"ETag": tag["ETag"].strip('"'), "PartNumber": str(tag["PartNumber"])}
        for tag in reversed(uploaded.tags)
    ]
    assert service.complete(uploaded, multi_parts_tags={uploaded.name: tags}).status_code == 200


def test_a_checkpoint_of_two_files_is_completed_in_one_call(service: Service) -> None:
    names = [unique("a"), unique("b")]
    answer = service.call(
        "POST", "/checkpoints", one_file(filenames=[{"filename": name, "parts_number": 1} for name in names])
    )
    urls = answer.json["data"]["s3PresignUrl"]
    tags = {name: put_parts(urls[name], [safetensors(9)]) for name in names}
    path = f"/checkpoints/{answer.json['data']['checkpoint']['id']}"
    lacking = service.call("PUT", path, {"status": "Active", "multi_parts_tags": {names[0]: tags[names[0]]}})
    assert (lacking.status_code, lacking.json["message"]) == (
        400,
        f"multi_parts_tags has no parts of {names[1]}",
    )
    done = service.call("PUT", path, {"status": "Active", "multi_parts_tags": tags})
    assert (done.status_code, done.json["checkpoint"]["name"]) == (200, names)


def _without_last(tags: list[Any]) -> list[Any]:
    return tags[:-1]


def _wrong_etag(tags: list[Any]) -> list[Any]:
    return [tags[0], tags[1] | {"ETag": '"0123"'}]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_last, "part 2 of {name} is missing in multi_parts_tags"),
        (_wrong_etag, "part 2 of {name} has the ETag {etag}, not 0123"),
        (lambda tags: [*tags, tags[0]], "part 1 of {name} is named twice"),
        (
            lambda tags: [*tags, tags[0] | {"PartNumber": 3}],
            "part 3 of {name} is one too many: it was begun with 2",
        ),
        (lambda tags: [], "multi_parts_tags has no parts of {name}"),
        (lambda tags: [{"ETag": "x"}], 'object has missing required properties (["PartNumber"])'),
        (
            lambda tags: "x",
            'instance type (string) does not match any allowed primitive type (allowed: ["array"])',
        ),
    ],
)
def test_wrong_tags_change_nothing_and_the_right_ones_still_complete(
    service: Service, spoil: Any, message: str
) -> None:
    uploaded = service.upload(safetensors(PART))
    answer = service.complete(uploaded, multi_parts_tags={uploaded.name: spoil(uploaded.tags)})
    etag = uploaded.tags[1]["ETag"].strip('"')
    assert (answer.status_code, answer.json["message"]) == (
        400,
        message.format(name=uploaded.name, etag=etag),
    )
    assert service.status(uploaded.id) == "Initial"
    assert service.complete(uploaded).status_code == 200


@pytest.mark.parametrize("tags", [None, {}])
def test_completing_without_tags_is_refused(service: Service, tags: Any) -> None:
    uploaded = service.upload()
    answer = service.complete(uploaded, multi_parts_tags=tags)
    assert (answer.status_code, answer.json["message"]) == (400, "multi parts tags is empty")


def test_a_part_that_was_not_uploaded_is_named(service: Service) -> None:
    begun = service.begin(parts=2)
    ((name, urls),) = begun["s3PresignUrl"].items()
    tags = put_parts(urls[:1], [bytes(PART)])
    path = f"/checkpoints/{begun['checkpoint']['id']}"
    body = {"status": "Active", "multi_parts_tags": {name: [*tags, {"ETag": "x", "PartNumber": 2}]}}
    answer = service.call("PUT", path, body)
    assert (answer.status_code, answer.json["message"]) == (400, f"part 2 of {name} was not uploaded")


def test_tags_of_a_file_that_is_not_there_are_refused(service: Service) -> None:
    uploaded = service.upload()
    answer = service.complete(uploaded, multi_parts_tags={"other": uploaded.tags})
    message = f"multi_parts_tags names other, which is no file of checkpoint {uploaded.id}"
    assert (answer.status_code, answer.json["message"]) == (400, message)


def test_when_s3_refuses_nothing_changes(service: Service) -> None:
    begun = service.begin(parts=2)
    ((name, urls),) = begun["s3PresignUrl"].items()
    tags = put_parts(urls, [b"too small a part", b"x"])
    path = f"/checkpoints/{begun['checkpoint']['id']}"
    answer = service.call("PUT", path, {"status": "Active", "multi_parts_tags": {name: tags}})
    assert answer.status_code == 400
    assert answer.json["message"].startswith(f"S3 refused to complete the upload of {name}: ")
    assert service.call("GET", path).json["data"]["checkpoint"] == begun["checkpoint"]
    better = put_parts(urls, [safetensors(PART)[:PART], safetensors(PART)[PART:]])
    again = service.call("PUT", path, {"status": "Active", "multi_parts_tags": {name: better}})
    assert again.status_code == 200, again.text


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"not a model at all", "is not a safetensors file: its first 8 bytes claim a header of"),
        (
            safetensors(1000)[:-1],
            "is truncated: its header promises 1000 bytes of tensors, the file holds 999",
        ),
        (safetensors(1000, dtype="F32"), "takes 4000 bytes, its data_offsets [0, 1000] give 1000"),
        (b"", "is not a safetensors file: it holds 0 bytes"),
    ],
)
def test_an_invalid_file_is_refused_and_can_be_uploaded_again(
    service: Service, content: bytes, fault: str
) -> None:
    uploaded = service.upload(content)
    answer = service.complete(uploaded)
    assert answer.status_code == 400
    assert fault in answer.json["message"]
    assert answer.json["errors"] == {uploaded.name: [answer.json["message"]]}
    shown = service.call("GET", f"/checkpoints/{uploaded.id}").json["data"]["checkpoint"]
    assert (shown["status"], shown["params"]["error"]) == ("Initial", answer.json["message"])
    assert service.parts.storage.find(f"Lora/checkpoint/custom/{uploaded.id}/{uploaded.name}") is None
    (upload,) = service.call("GET", f"/checkpoints/{uploaded.id}/uploads").json["data"]["uploads"]
    assert ([one["PartNumber"] for one in upload["missing"]], upload["parts"]) == ([1], [])
    tags = put_parts([upload["missing"][0]["url"]], [safetensors()])
    again = service.complete(uploaded, multi_parts_tags={uploaded.name: tags})
    assert again.status_code == 200
    assert "error" not in again.json["checkpoint"]["params"]


def test_completing_again_answers_the_finished_checkpoint(service: Service) -> None:
    uploaded = service.upload()
    first, second = service.complete(uploaded), service.complete(uploaded)
    assert (second.status_code, second.json) == (200, first.json)


# Resuming


def test_uploads_lists_what_arrived_and_urls_for_the_rest(service: Service) -> None:
    content = safetensors(2 * PART)
    pieces = [content[start : start + PART] for start in range(0, len(content), PART)]
    begun = service.begin(parts=3)
    ((name, urls),) = begun["s3PresignUrl"].items()
    checkpoint_id = begun["checkpoint"]["id"]
    second = requests.put(urls[1], data=pieces[1], timeout=30).headers["ETag"]
    data = service.call("GET", f"/checkpoints/{checkpoint_id}/uploads").json["data"]
    (upload,) = data["uploads"]
    assert (data["checkpoint_id"], data["status"], upload["filename"]) == (checkpoint_id, "Initial", name)
    assert (upload["parts_number"], upload["complete"]) == (3, False)
    assert upload["parts"] == [{"PartNumber": 2, "ETag": second, "Size": PART}]
    assert [one["PartNumber"] for one in upload["missing"]] == [1, 3]
    first, third = put_parts([one["url"] for one in upload["missing"]], [pieces[0], pieces[2]])
    tags = [first, upload["parts"][0], third | {"PartNumber": 3}]
    body = {"status": "Active", "multi_parts_tags": {name: tags}}
    assert service.call("PUT", f"/checkpoints/{checkpoint_id}", body).status_code == 200
    (upload,) = service.call("GET", f"/checkpoints/{checkpoint_id}/uploads").json["data"]["uploads"]
    assert (upload["complete"], upload["missing"]) == (True, [])


def test_an_upload_that_s3_has_forgotten_is_begun_anew(service: Service) -> None:
    uploaded = service.upload()
    storage = service.parts.storage
    for key, upload_id in storage.open_uploads(f"Lora/checkpoint/custom/{uploaded.id}/"):
        storage.abort_upload(key, upload_id)
    answer = service.complete(uploaded)
    assert answer.status_code == 400
    assert answer.json["message"].startswith(
        f"the upload of {uploaded.name} no longer exists in S3: a new one"
    )
    (upload,) = service.call("GET", f"/checkpoints/{uploaded.id}/uploads").json["data"]["uploads"]
    tags = put_parts([upload["missing"][0]["url"]], [safetensors()])
    assert service.complete(uploaded, multi_parts_tags={uploaded.name: tags}).status_code == 200


# States and edits


def test_disabling_and_enabling(service: Service) -> None:
    path = f"/checkpoints/{service.active().id}"
    for status in ("Disabled", "Disabled", "Active", "Active"):
        answer = service.call("PUT", path, {"status": status})
        assert (answer.status_code, answer.json["checkpoint"]["status"]) == (200, status)


def test_an_unfinished_checkpoint_cannot_be_disabled(service: Service) -> None:
    begun = service.begin()["checkpoint"]
    answer = service.call("PUT", f"/checkpoints/{begun['id']}", {"status": "Disabled"})
    message = f"checkpoint {begun['id']} is Initial, only one that is Active can become Disabled"
    assert (answer.status_code, answer.json["message"]) == (409, message)


def test_params_are_merged_and_what_the_service_says_stays(service: Service) -> None:
    begun = service.begin(params={"message": "old", "note": 1})["checkpoint"]
    new = {"message": "new", "created": "never", "error": "none", "$a.b": {"$c": 1.5}}
    answer = service.call("PUT", f"/checkpoints/{begun['id']}", {"params": new})
    params = answer.json["checkpoint"]["params"]
    assert answer.status_code == 200
    assert params == begun["params"] | {"message": "new", "$a.b": {"$c": 1.5}}


def test_the_allowed_can_be_changed(service: Service) -> None:
    path = f"/checkpoints/{service.active().id}"
    bob = service.user("bob", ("others",))
    assert service.call("GET", path, who=bob).status_code == 404
    assert service.call("PUT", path, {"allowed_roles_or_users": ["others"]}).status_code == 200
    assert service.call("GET", path, who=bob).json["data"]["checkpoint"]["allowed_roles_or_users"] == [
        "others"
    ]


def test_giving_a_checkpoint_to_another_needs_the_right_to_act_for_them(service: Service) -> None:
    path = f"/checkpoints/{service.active().id}"
    assert service.call("PUT", path, {"params": {"creator": "bob"}}).status_code == 403
    answer = service.call("PUT", path, {"params": {"creator": "bob"}}, service.admin())
    assert answer.json["checkpoint"]["params"]["creator"] == "bob"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "nothing to change: give one of status, name, checkpoint_type, params, allowed_roles_or_users"),
        (
            {"status": "Initial"},
            'instance value ("Initial") not found in enum (possible values: ["Active","Disabled"])',
        ),
        (
            {"status": 1},
            'instance type (integer) does not match any allowed primitive type (allowed: ["string"])',
        ),
        ({"checkpoint_type": "x"}, "not found in enum"),
        ({"name": ""}, 'string "" is too short (length: 0, required minimum: 1)'),
        (
            {"multi_parts_tags": []},
            'instance type (array) does not match any allowed primitive type (allowed: ["object"])',
        ),
    ],
)
def test_a_wrong_change_is_refused(service: Service, body: Any, message: str) -> None:
    answer = service.call("PUT", f"/checkpoints/{service.begin()['checkpoint']['id']}", body)
    assert answer.status_code == 400
    assert message in answer.json["message"]


# Who sees and changes what


def test_others_see_what_their_role_or_name_or_everyone_may(service: Service) -> None:
    same, other = service.user("bob", ("artists",)), service.user("eve", ("others",))
    for allowed, seen_by_bob, seen_by_eve in (
        (None, True, False),
        ([], False, False),
        (["*"], True, True),
        (["eve"], False, True),
        (["others", "x"], False, True),
    ):
        begun = service.begin(allowed_roles_or_users=allowed)["checkpoint"]
        for who, sees in (
            (same, seen_by_bob),
            (other, seen_by_eve),
            (service.user(), True),
            (service.admin(), True),
        ):
            one = service.call("GET", f"/checkpoints/{begun['id']}", who=who)
            listed = service.call("GET", "/checkpoints", who=who).json["data"]["checkpoints"]
            assert one.status_code == (200 if sees else 404)
            assert (begun["id"] in [entry["id"] for entry in listed]) is sees


def test_what_one_may_not_see_is_not_found(service: Service) -> None:
    hidden = service.active(allowed_roles_or_users=[])
    eve = service.user("eve", ("others",))
    for checkpoint_id in (hidden.id, "unknown", str(uuid.uuid4())):
        for method, path, body in (
            ("GET", f"/checkpoints/{checkpoint_id}", None),
            ("PUT", f"/checkpoints/{checkpoint_id}", {"status": "Disabled"}),
            ("GET", f"/checkpoints/{checkpoint_id}/uploads", None),
        ):
            answer = service.call(method, path, body, eve)
            message = f"checkpoint with id {checkpoint_id} not found"
            assert (answer.status_code, answer.json["message"]) == (404, message)


def test_seeing_is_not_changing(service: Service) -> None:
    uploaded = service.upload(allowed_roles_or_users=["*"])
    eve = service.user("eve", ("others",))
    assert service.complete(uploaded, eve).status_code == 403
    assert service.call("GET", f"/checkpoints/{uploaded.id}/uploads", who=eve).status_code == 403
    assert (
        service.call("DELETE", "/checkpoints", {"checkpoint_id_list": [uploaded.id]}, eve).status_code == 204
    )
    assert service.status(uploaded.id) == "Initial"
    assert service.complete(uploaded, service.admin()).status_code == 200


# Lists


def test_the_list_shows_what_the_contract_names(service: Service) -> None:
    uploaded = service.active()
    (entry,) = [
        one
        for one in service.call("GET", "/checkpoints").json["data"]["checkpoints"]
        if one["id"] == uploaded.id
    ]
    assert (entry["type"], entry["status"], entry["name"]) == ("Lora", "Active", [uploaded.name])
    assert entry["s3Location"] == f"s3://{service.parts.storage.bucket}/Lora/checkpoint/custom/{uploaded.id}"
    assert abs(entry["created"] - datetime.now(UTC).timestamp()) < 60
    assert entry["allowed_roles_or_users"] == ["artists"]


def test_filters_select(service: Service) -> None:
    owner = unique("user")
    who = service.user(owner, ("r1", "r2"))
    lora = service.active(who=who).id
    vae = service.begin(who=who, checkpoint_type="VAE", allowed_roles_or_users=["r2"])["checkpoint"]["id"]

    def ids(query: str, caller: dict[str, str] = who) -> set[str]:
        answer = service.call("GET", f"/checkpoints?{query}", who=caller)
        return {one["id"] for one in answer.json["data"]["checkpoints"]} & {lora, vae}

    assert ids("") == {lora, vae}
    assert ids("status=Active") == {lora}
    assert ids("status=Active&status=Initial") == {lora, vae}
    assert ids("types=VAE") == {vae}
    assert ids("types=VAE&types=Lora&status=Active") == {lora}
    assert ids("roles=r1") == {lora}
    assert ids("roles=r1&roles=r2") == {lora, vae}
    assert ids("roles=r3") == set()
    assert ids(f"username={owner}", service.admin()) == {lora, vae}
    assert ids("username=ann", service.admin()) == set()
    assert ids(f"username={owner}", service.user("eve", ("others",))) == set()


@pytest.mark.parametrize(
    "query",
    [
        "status=Nothing",
        "types=lora",
        "page=0",
        "page=x",
        "per_page=0",
        "per_page=1001",
        "limit=0",
        "limit=1001",
        "last_evaluated_key=bm8=",
    ],
)
def test_a_wrong_query_is_refused(service: Service, query: str) -> None:
    answer = service.call("GET", f"/checkpoints?{query}")
    assert (answer.status_code, answer.json["statusCode"]) == (400, 400)


def test_pages_by_number_and_by_key_give_each_entry_once_newest_first(service: Service) -> None:
    owner = unique("pager")
    who = service.user(owner, ("pagers",))
    made = [service.begin(who=who)["checkpoint"]["id"] for _ in range(5)][::-1]

    def ids(data: dict[str, Any]) -> list[str]:
        return [one["id"] for one in data["checkpoints"]]

    pages = [
        service.call("GET", f"/checkpoints?username={owner}&page={page}&per_page=2", who=who).json["data"]
        for page in (1, 2, 3, 4)
    ]
    assert [ids(page) for page in pages] == [made[:2], made[2:4], made[4:], []]
    assert {(page["per_page"], page["pages"], page["total"]) for page in pages} == {(2, 3, 5)}
    assert [page["page"] for page in pages] == [1, 2, 3, 4]
    key, seen = "", []
    while key is not None:
        data = service.call(
            "GET", f"/checkpoints?username={owner}&limit=2&last_evaluated_key={key}", who=who
        ).json["data"]
        seen, key = seen + ids(data), data["last_evaluated_key"]
    assert seen == made
    assert service.call("GET", f"/checkpoints?username={owner}", who=who).json["data"]["total"] == 5


# Deletion


def test_deleting_leaves_nothing_behind(service: Service) -> None:
    active, unfinished = service.active(), service.upload(safetensors(PART))
    assert service.leftovers(active.id)
    assert service.leftovers(unfinished.id)
    ids = [active.id, unfinished.id, "absent", active.id]
    answer = service.call("DELETE", "/checkpoints", {"checkpoint_id_list": ids})
    assert (answer.status_code, answer.data) == (204, b"")
    assert service.leftovers(active.id) == service.leftovers(unfinished.id) == []
    assert service.call("GET", f"/checkpoints/{active.id}").status_code == 404
    service.active()  # and the service goes on


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, 'object has missing required properties (["checkpoint_id_list"])'),
        (
            {"checkpoint_id_list": []},
            "array is too short: must have at least 1 elements but instance has 0 elements",
        ),
        (
            {"checkpoint_id_list": [1]},
            'instance type (integer) does not match any allowed primitive type (allowed: ["string"])',
        ),
    ],
)
def test_a_wrong_deletion_is_refused(service: Service, body: Any, message: str) -> None:
    answer = service.call("DELETE", "/checkpoints", body)
    assert (answer.status_code, answer.json["message"]) == (400, message)


def test_the_service_is_ready_and_publishes_its_routes(service: Service) -> None:
    client = service.app.test_client()
    assert client.get("/readyz").status_code == 200
    paths = client.get("/internal/openapi.json").json["paths"]
    assert set(paths["/checkpoints"]) >= {"get", "post", "delete"}
