"""Data sets as clients make, see, change and delete them."""

import pytest
import requests

from tests.datasets.conftest import Service, picture


def test_files_go_straight_to_storage_and_are_shown_with_previews(service: Service) -> None:
    content = picture()
    name = service.create({"a.png": content, "deep/b.png": picture("red")}, params={"subject": "stars"})
    service.enable(name)
    shown = service.shown(name)
    bucket = service.parts.storage.objects.bucket
    assert shown["s3"] == f"s3://{bucket}/dataset/{name}"
    assert (shown["status"], shown["params"]) == ("Enabled", {"subject": "stars"})
    first, second = shown["data"]
    assert (first["key"], second["key"]) == (f"dataset/{name}/a.png", f"dataset/{name}/deep/b.png")
    assert (first["dataStatus"], first["type"], first["width"]) == ("Enabled", "image", 64)
    assert requests.get(first["preview_url"], timeout=10).content == content


def test_a_prefix_is_a_folder_of_the_data_set(service: Service) -> None:
    name = service.create({"a.png": picture()}, prefix="10_star/")
    assert service.files(name)["a.png"]["key"] == f"dataset/{name}/10_star/a.png"


def test_a_name_is_taken_until_the_data_set_is_deleted(service: Service) -> None:
    name = service.create({"a.png": picture()})
    again = {"dataset_name": name, "content": []}
    taken = service.call("POST", "/datasets", again)
    assert taken.status_code == 400
    assert taken.json["message"] == f"dataset {name} already exists, please use another name or delete exists"
    assert service.call("DELETE", "/datasets", {"dataset_name_list": [name, "nothing"]}).status_code == 204
    assert list(service.parts.storage.stored(name)) == []
    gone = service.call("GET", f"/datasets/{name}")
    assert (gone.status_code, gone.json["message"]) == (404, f"dataset {name} is not found")
    assert service.call("POST", "/datasets", again).status_code == 201


def test_a_repeated_creation_creates_once(service: Service) -> None:
    body = {"dataset_name": "repeated", "content": [{"filename": "a.png"}]}
    answers = [service.call("POST", "/datasets", body, **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert list(answers[1].json["data"]["s3PresignUrl"]) == ["a.png"]


def test_a_creation_that_was_cut_off_is_made_whole_by_its_repeat(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"dataset_name": "cut-off", "content": [{"filename": "a.png"}, {"filename": "b.png"}]}

    def dies(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(service.parts.repository, "add", dies)
        service.call("POST", "/datasets", body, **{"Idempotency-Key": "cut"})
    again = service.call("POST", "/datasets", body, **{"Idempotency-Key": "cut"})
    assert sorted(again.json["data"]["s3PresignUrl"]) == ["a.png", "b.png"]
    assert sorted(service.files("cut-off")) == ["a.png", "b.png"]


def test_a_taken_name_leaves_the_files_of_the_first_alone(service: Service) -> None:
    name = service.create({"a.png": picture()})
    taken = service.call("POST", "/datasets", {"dataset_name": name, "content": [{"filename": "never.png"}]})
    assert taken.status_code == 400
    assert sorted(service.files(name)) == ["a.png"]
    assert service.parts.database["items"].count_documents({"filename": "never.png"}) == 0


def test_names_that_cannot_be_used_are_told(service: Service) -> None:
    def message(**changes: object) -> str:
        answer = service.call("POST", "/datasets", {"dataset_name": "x", "content": []} | changes)
        assert answer.status_code == 400
        return str(answer.json["message"])

    assert message(dataset_name="../x").startswith('dataset_name "../x" must have 1 to 100 letters')
    assert "must be a relative path" in message(content=[{"filename": "../a.png"}])
    assert "must be a relative path" in message(content=[{"filename": "/a.png"}])
    assert message(content=[{"filename": "a"}, {"filename": "a"}]) == "files are named twice: a"
    assert message(content=[{}]) == 'object has missing required properties (["filename"])'


def test_only_the_creator_changes_what_others_may_see(service: Service) -> None:
    name = service.create({"a.png": picture()}, allowed_roles_or_users=["painters"])
    painter, stranger = service.user("pam", ("painters",)), service.user("sam", ("others",))
    assert service.shown(name, painter)["datasetName"] == name
    refused = service.call("PUT", f"/datasets/{name}", {"status": "Disabled"}, painter)
    assert (refused.status_code, refused.json["message"]) == (
        403,
        f"dataset {name} may be changed by its creator or with the permission train:all",
    )
    for method, path, body in (
        ("GET", f"/datasets/{name}", None),
        ("PUT", f"/datasets/{name}", {"status": "Disabled"}),
        ("POST", f"/datasets/{name}/items", {"content": [{"filename": "b.png"}]}),
        ("POST", f"/datasets/{name}/crop", {"width": 64, "height": 64}),
    ):
        assert service.call(method, path, body, stranger).status_code == 404
    service.call("DELETE", "/datasets", {"dataset_name_list": [name]}, painter)
    listed = service.call("GET", "/datasets", who=painter).json["data"]["datasets"]
    assert name in [one["datasetName"] for one in listed]
    assert service.resolve(name, username="sam", roles=["others"])["missing"] == [name]


def test_creating_for_somebody_else_needs_the_right(service: Service) -> None:
    body = {"dataset_name": "for-ben", "content": [], "creator": "ben"}
    assert service.call("POST", "/datasets", body).status_code == 403
    assert service.call("POST", "/datasets", body, service.keys.user("root")).status_code == 201
    assert service.shown("for-ben", service.user("ben", ()))["creator"] == "ben"
    nobody = service.call("POST", "/datasets", body | {"creator": "who"}, service.keys.user("root"))
    assert (nobody.status_code, nobody.json["message"]) == (400, 'user: "who" not exist')


def test_a_list_is_filtered_and_paged(service: Service) -> None:
    who = service.user("lister")
    names = [service.create({}, who=who) for _ in range(3)]
    service.call("PUT", f"/datasets/{names[0]}", {"status": "Disabled"}, who)

    def page(query: str) -> dict:
        found = service.call("GET", f"/datasets?{query}", who=who).json["data"]
        shown = [one["datasetName"] for one in found["datasets"]]
        return found | {"names": [name for name in shown if name in names]}

    first = page("limit=2")
    assert first["names"] == [names[2], names[1]]
    assert page(f"limit=2&last_evaluated_key={first['last_evaluated_key']}")["names"][:1] == [names[0]]
    assert page("dataset_status=Disabled")["names"] == [names[0]]
    assert service.call("GET", "/datasets?dataset_status=Wrong").status_code == 400


def test_older_clients_name_the_data_set_in_the_body_and_read_its_data(service: Service) -> None:
    name = service.create({"a.png": picture()})
    changed = service.call("PUT", "/datasets", {"dataset_name": name, "status": "Enabled"})
    assert changed.json["data"] == {"datasetName": name, "status": "Enabled"}
    assert len(service.call("GET", f"/datasets/{name}/data").json["data"]["data"]) == 1


def test_files_are_added_and_removed(service: Service) -> None:
    name = service.create({"a.png": picture()})
    service.enable(name)
    added = service.call("POST", f"/datasets/{name}/items", {"content": [{"filename": "b.png"}]})
    service.put(added.json["data"]["s3PresignUrl"], {"b.png": picture("red")})
    again = service.call(
        "POST", f"/datasets/{name}/items", {"content": [{"filename": "b.png"}, {"filename": "c.png"}]}
    )
    assert (again.status_code, again.json["message"]) == (
        400,
        "the data set has already: b.png; delete them first",
    )
    assert sorted(service.files(name)) == ["a.png", "b.png"]
    assert service.files(name)["b.png"]["dataStatus"] == "Initialed"
    service.enable(name)
    assert service.files(name)["b.png"]["dataStatus"] == "Enabled"
    removed = service.call("DELETE", f"/datasets/{name}/items", {"filename_list": ["a.png", "z.png"]})
    assert removed.status_code == 204
    assert sorted(service.files(name)) == ["b.png"]
    assert list(service.parts.storage.stored(name)) == [f"dataset/{name}/b.png"]


def test_a_change_of_nothing_is_told(service: Service) -> None:
    name = service.create({})
    assert service.call("PUT", f"/datasets/{name}", {}).status_code == 400
    wrong = service.call("PUT", f"/datasets/{name}", {"status": "Active"})
    assert wrong.json["message"] == (
        'instance value ("Active") not found in enum (possible values: ["Enabled","Disabled"])'
    )
