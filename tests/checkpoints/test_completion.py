"""Completing and resuming uploads: what S3 holds is what counts."""

from typing import Any

import pytest
import requests

from tests.checkpoints.conftest import PART, Service, one_file, put_parts, safetensors, unique


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
