"""The routes of checkpoints as clients call them: rights, states, lists, deletion."""

import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from services.common.identity import undeclared_routes
from tests.checkpoints.conftest import PART, Service, safetensors, unique

EVERY_ROUTE = [
    ("POST", "/checkpoints", "checkpoint:create"),
    ("GET", "/checkpoints", "checkpoint:list"),
    ("DELETE", "/checkpoints", "checkpoint:delete"),
    ("GET", "/checkpoints/x", "checkpoint:list"),
    ("PUT", "/checkpoints/x", "checkpoint:update"),
    ("PUT", "/checkpoints", "checkpoint:update"),
    ("GET", "/checkpoints/x/uploads", "checkpoint:update"),
]
VALID: dict[tuple[str, str], Any] = {
    ("POST", "/checkpoints"): {
        "checkpoint_type": "Lora",
        "filenames": [{"filename": "never.safetensors", "parts_number": 1}],
    },
    ("DELETE", "/checkpoints"): {"checkpoint_id_list": ["x"]},
    ("PUT", "/checkpoints/x"): {"status": "Disabled"},
    ("PUT", "/checkpoints"): {"checkpoint_id": "x", "status": "Disabled"},
}


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


def test_a_body_that_is_no_json_is_refused(service: Service) -> None:
    for method, path in VALID:
        answer = service.app.test_client().open(path, method=method, data=b"{", headers=service.user())
        assert (answer.status_code, answer.json["message"]) == (400, "Invalid request body")


# States and edits


def test_disabling_and_enabling(service: Service) -> None:
    path = f"/checkpoints/{service.active().id}"
    for status in ("Disabled", "Disabled", "Active", "Active"):
        answer = service.call("PUT", path, {"status": status})
        assert (answer.status_code, answer.json["checkpoint"]["status"]) == (200, status)


def test_older_clients_name_the_checkpoint_in_the_body(service: Service) -> None:
    checkpoint_id = service.active().id
    answer = service.call("PUT", "/checkpoints", {"checkpoint_id": checkpoint_id, "status": "Disabled"})
    assert answer.status_code == 200
    assert answer.json["data"]["checkpoint"] == answer.json["checkpoint"]
    assert service.status(checkpoint_id) == "Disabled"
    absent = service.call("PUT", "/checkpoints", {"checkpoint_id": str(uuid.uuid4()), "status": "Disabled"})
    assert absent.status_code == 404
    without = service.call("PUT", "/checkpoints", {"status": "Disabled"})
    assert without.json["message"] == 'object has missing required properties (["checkpoint_id"])'


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
