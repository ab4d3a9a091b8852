"""What is found out about uploaded files, captions, and data sets of cropped pictures."""

import io
import struct
import zlib
from typing import Any

import pytest
import requests
from PIL import Image

from tests.datasets.conftest import Service, picture


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    made = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        made += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return made


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"hello", "the file is not a whole picture"),
        (picture()[:60], "the file is not a whole picture"),
        (picture("red", (200, 200), "JPEG")[:-300], "the file is not a whole picture"),
        (picture(size=(16, 64)), "the picture has 16x64 pixels, each side needs 32"),
        (bomb(9_000), "the picture has 9000x9000 pixels, at most 1 million are possible"),
        (bomb(60_000), "the picture has more pixels than the 1 million that are possible"),
        (b"%PDF-1.4 not a picture", "the file is not a whole picture"),
    ],
    ids=["empty", "text", "cut PNG", "cut JPEG", "small", "bomb", "larger bomb", "PDF"],
)
def test_what_cannot_be_trained_on_is_said_at_the_file(
    service: Service, content: bytes, problem: str
) -> None:
    name = service.create({"a.png": content, "good.png": picture()})
    service.enable(name)
    files = service.files(name)
    assert files["a.png"]["dataStatus"] == "Disabled"
    assert files["a.png"]["problems"][0].startswith(problem)
    assert (files["good.png"]["dataStatus"], files["good.png"]["problems"]) == ("Enabled", [])
    found = service.resolve(name)["datasets"][0]
    assert [one["filename"] for one in found["pictures"]] == ["good.png"]
    assert found["faulty"] == 1


def test_the_same_picture_twice_is_used_once_and_again_when_the_first_is_removed(service: Service) -> None:
    name = service.create({"a.png": picture("red"), "b.png": picture("red"), "c.png": picture("blue")})
    service.enable(name)
    assert service.files(name)["b.png"]["problems"] == ["it is the same picture as a.png"]
    service.call("DELETE", f"/datasets/{name}/items", {"filename_list": ["a.png"]})
    service.work()
    assert service.files(name)["b.png"]["dataStatus"] == "Enabled"


def test_what_was_not_uploaded_is_said(service: Service) -> None:
    answer = service.call(
        "POST", "/datasets", {"dataset_name": "missing-one", "content": [{"filename": "a.png"}]}
    )
    service.enable("missing-one")
    item = service.files("missing-one")["a.png"]
    assert (item["dataStatus"], item["problems"]) == ("Initialed", ["the file was not uploaded"])
    assert item["preview_url"] is None
    service.put(answer.json["data"]["s3PresignUrl"], {"a.png": picture()})
    service.enable("missing-one")
    assert service.files("missing-one")["a.png"]["dataStatus"] == "Enabled"


def test_a_replaced_picture_is_examined_anew(service: Service) -> None:
    body = {"dataset_name": "replaced", "content": [{"filename": "a.png"}]}
    urls = service.call("POST", "/datasets", body).json["data"]["s3PresignUrl"]
    service.put(urls, {"a.png": b"broken"})
    service.enable("replaced")
    assert service.files("replaced")["a.png"]["dataStatus"] == "Disabled"
    service.put(urls, {"a.png": picture()})
    service.enable("replaced")
    assert service.files("replaced")["a.png"]["problems"] == []


def test_captions_come_from_text_files_beside_the_pictures_and_can_be_edited(service: Service) -> None:
    files = {
        "a.png": picture("red"),
        "a.txt": b"a violet star\n",
        "b.png": picture("blue"),
        "alone.txt": b"nobody",
        "c.png": picture("green"),
        "c.txt": b"\xff\xfe\x00",
    }
    name = service.create(files)
    service.enable(name)
    shown = service.files(name)
    assert shown["a.png"]["caption"] == "a violet star"
    assert shown["b.png"]["caption"] is None
    assert shown["alone.txt"]["problems"] == ["there is no picture of this name for the caption"]
    assert shown["c.txt"]["problems"] == ["the caption is not UTF-8 text"]
    edited = service.call(
        "PUT", f"/datasets/{name}/items", {"captions": {"a.png": "one star", "b.png": "two"}}
    )
    assert edited.status_code == 200
    service.enable(name)  # the file's caption was taken before: what was edited stays
    assert [service.files(name)[one]["caption"] for one in ("a.png", "b.png")] == ["one star", "two"]
    unknown = service.call("PUT", f"/datasets/{name}/items", {"captions": {"z.png": "x", "a.txt": "y"}})
    assert (unknown.status_code, unknown.json["message"]) == (
        404,
        "the data set has no picture named: a.txt, z.png",
    )


def test_captions_can_be_given_with_the_files(service: Service) -> None:
    content: list[dict[str, Any]] = [
        {"filename": "a.png", "caption": "one"},
        {"filename": "b.png", "params": {"caption": "two"}},
    ]
    service.call("POST", "/datasets", {"dataset_name": "with-captions", "content": content})
    assert [one["caption"] for one in service.files("with-captions").values()] == ["one", "two"]


def test_a_data_set_is_cropped_to_a_training_size(service: Service) -> None:
    name = service.create({"a.jpg": picture("red", (300, 100), "JPEG"), "b.png": b"broken", "a.txt": b"red"})
    service.enable(name)
    answer = service.call("POST", f"/datasets/{name}/crop", {"width": 64, "height": 64})
    assert (answer.status_code, answer.json["data"]) == (202, {"datasetName": f"{name}-64x64"})
    early = service.call("PUT", f"/datasets/{name}-64x64", {"status": "Enabled"})
    assert (early.status_code, early.json["message"][-22:]) == (409, "please try again later")
    service.work()
    made = service.shown(f"{name}-64x64")
    assert (made["status"], made["making"]) == ("Enabled", None)
    (item,) = made["data"]
    assert (item["filename"], item["caption"], item["problems"]) == ("a.png", "red", [])
    fetched = Image.open(io.BytesIO(requests.get(item["preview_url"], timeout=10).content))
    assert fetched.size == (64, 64)


def test_a_crop_goes_on_after_a_death(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    name = service.create({f"{n}.png": picture(colour) for n, colour in enumerate(("red", "blue", "green"))})
    service.enable(name)
    service.call("POST", f"/datasets/{name}/crop", {"width": 64, "height": 96, "mode": "fit"})
    write, written = service.parts.storage.write, []

    def dies(key: str, *rest: Any) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(key)
        write(key, *rest)

    monkeypatch.setattr(service.parts.storage, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        service.work()
    monkeypatch.setattr(service.parts.storage, "write", write)
    service.work()
    assert sorted(service.files(f"{name}-64x96")) == ["0.png", "1.png", "2.png"]


def test_nothing_good_is_nothing_to_crop(service: Service) -> None:
    name = service.create({"a.png": b"broken"})
    service.enable(name)
    refused = service.call("POST", f"/datasets/{name}/crop", {"width": 64, "height": 64})
    assert refused.status_code == 400
    assert refused.json["message"] == f"dataset {name} has no verified picture: upload some, then enable it"


def test_two_processes_do_not_verify_at_once_and_a_deletion_ends_the_work(service: Service) -> None:
    name = service.create({"a.png": picture()})
    service.call("PUT", f"/datasets/{name}", {"status": "Enabled"})
    dataset = service.parts.repository.find_named([name], _everybody())[0]
    assert service.parts.repository.take_lease(dataset["_id"], "other", 60)
    service.parts.background.run(dataset["_id"])
    assert service.files(name)["a.png"]["dataStatus"] == "Initialed"
    assert service.parts.repository.go_on(dataset["_id"], "other", 60)
    service.call("DELETE", "/datasets", {"dataset_name_list": [name]})
    assert not service.parts.repository.go_on(dataset["_id"], "other", 60)


def _everybody() -> Any:
    from services.datasets.repository import Viewer

    return Viewer("root", see_all=True)
