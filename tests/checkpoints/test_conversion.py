"""Pickles: converted in a process of their own, or refused with a sentence; nothing is left of a failure."""

import io
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.checkpoints import conversion
from services.checkpoints.sandbox import NotConvertible
from tests.checkpoints.conftest import Service, Uploaded, pickled, safetensors, unique
from tests.checkpoints.source import Source, running_source

EVIL = b"cposix\nsystem\n(X%s%stR0"  # calls os.system, and drops what it gives


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with running_source() as running:
        yield running


@pytest.fixture(scope="module")
def converter(start_service: Callable[..., Service], source: Source) -> Service:
    """A service whose background work is done when the test asks for it."""
    service = start_service(CHECKPOINTS_IMPORT_ALLOW=source.host)
    service.keep_to_itself()
    return service


def upload(service: Service, content: bytes, suffix: str = ".ckpt") -> Uploaded:
    """A completed upload that waits for its conversion."""
    uploaded = service.upload(content, name=unique("old", suffix))
    answer = service.complete(uploaded)
    assert (answer.status_code, answer.json["message"]) == (
        202,
        "Checkpoint conversion in progress, please check later",
    )
    return uploaded


def shown(service: Service, checkpoint_id: str) -> dict[str, Any]:
    return dict(service.call("GET", f"/checkpoints/{checkpoint_id}").json["data"]["checkpoint"])


def keys(service: Service, checkpoint_id: str) -> list[str]:
    store = service.parts.storage.objects
    return [key.rpartition("/")[2] for key in store.keys_under("") if checkpoint_id in key]


@pytest.fixture()
def copying(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The conversion without torch: a file like the one that it would write."""
    from tests.checkpoints.conftest import safetensors

    monkeypatch.setattr(
        conversion, "run", lambda name, size, source, target, _: (target.write(safetensors()), target.flush())
    )


def test_a_pickle_becomes_a_safetensors_file_in_a_process_of_its_own(converter: Service) -> None:
    uploaded = upload(converter, pickled((1.5, 2.5), "emb_params"))
    converter.parts.uploads.verify(uploaded.id)
    checkpoint = shown(converter, uploaded.id)
    name = uploaded.name.replace(".ckpt", ".safetensors")
    assert (checkpoint["status"], checkpoint["name"]) == ("Active", [name])
    assert keys(converter, uploaded.id) == [name]
    key = f"Lora/checkpoint/custom/{uploaded.id}/{name}"
    content = converter.parts.storage.objects.read(key, 10**6)
    assert content is not None
    assert content.endswith(struct.pack("<2f", 1.5, 2.5))
    assert converter.parts.storage.open_uploads(f"Lora/checkpoint/custom/{uploaded.id}/") == []


def test_an_imported_pickle_that_runs_code_is_refused_and_leaves_nothing(
    converter: Service, source: Source, tmp_path: Path
) -> None:
    mark = str(tmp_path / "ran").encode()
    command = b"touch " + mark
    code = EVIL % (struct.pack("<I", len(command)), command)
    name = unique("evil", ".pth")
    url = source.add(pickled(code=code), name)
    body = {"checkpoint_type": "Lora", "urls": [url]}
    checkpoint_id = converter.call("POST", "/checkpoints", body).json["data"]["checkpoint"]["id"]
    converter.parts.imports.run(checkpoint_id)
    assert shown(converter, checkpoint_id)["params"]["error"] == (
        f"{name} cannot be converted to safetensors: "
        "it asks for more than tensors (posix.system); such code is never run"
    )
    (record,) = converter.leftovers(checkpoint_id)
    assert record["stage"] == "failed"
    assert not Path(mark.decode()).exists()


def test_an_imported_pickle_is_converted_and_its_name_claimed(
    converter: Service, source: Source, copying: None
) -> None:
    name = unique("old", ".pth")
    body = {"checkpoint_type": "Lora", "urls": [source.add(pickled(), name)]}
    checkpoint_id = converter.call("POST", "/checkpoints", body).json["data"]["checkpoint"]["id"]
    converter.parts.imports.run(checkpoint_id)
    final = name.replace(".pth", ".safetensors")
    assert shown(converter, checkpoint_id)["name"] == [final]
    assert keys(converter, checkpoint_id) == [final]
    answer = converter.call(
        "POST",
        "/checkpoints",
        {"checkpoint_type": "Lora", "filenames": [{"filename": name, "parts_number": 1}]},
    )
    assert (answer.status_code, answer.json["message"]) == (
        400,
        f"{final} already exists, please use another or rename/delete exists",
    )


def test_a_failed_conversion_says_why_and_lets_the_file_be_uploaded_again(
    converter: Service, monkeypatch: pytest.MonkeyPatch, copying: None
) -> None:
    uploaded = upload(converter, b"PK\x03\x04 no archive")
    with monkeypatch.context() as patch:

        def fail(name: str, *_: Any) -> None:
            raise NotConvertible(f"{name} is odd")

        patch.setattr(conversion, "run", fail)
        converter.parts.uploads.verify(uploaded.id)
    checkpoint = shown(converter, uploaded.id)
    assert (checkpoint["status"], checkpoint["params"]["error"]) == ("Initial", f"{uploaded.name} is odd")
    assert keys(converter, uploaded.id) == []
    (upload_again,) = converter.call("GET", f"/checkpoints/{uploaded.id}/uploads").json["data"]["uploads"]
    assert [part["PartNumber"] for part in upload_again["missing"]] == [1]


def test_one_bad_file_discards_what_was_made_of_the_others(
    converter: Service, monkeypatch: pytest.MonkeyPatch, copying: None
) -> None:
    good, bad = unique("good", ".pt"), unique("bad", ".pt")
    files = [{"filename": name, "parts_number": 1} for name in (good, bad)]
    body = {"checkpoint_type": "Lora", "filenames": files}
    begun = converter.call("POST", "/checkpoints", body).json["data"]
    from tests.checkpoints.conftest import put_parts

    tags = {name: put_parts(urls, [b"x"]) for name, urls in begun["s3PresignUrl"].items()}
    checkpoint_id, real = begun["checkpoint"]["id"], conversion.run
    body = {"status": "Active", "multi_parts_tags": tags}
    assert converter.call("PUT", f"/checkpoints/{checkpoint_id}", body).status_code == 202

    def fail_second(name: str, *rest: Any) -> None:
        if name == bad:
            raise NotConvertible(f"{name} is odd")
        real(name, *rest)

    monkeypatch.setattr(conversion, "run", fail_second)
    converter.parts.uploads.verify(checkpoint_id)
    assert keys(converter, checkpoint_id) == [good]  # as it was uploaded; the other is to be uploaded again
    monkeypatch.setattr(conversion, "run", real)
    (again,) = [
        one
        for one in converter.call("GET", f"/checkpoints/{checkpoint_id}/uploads").json["data"]["uploads"]
        if not one["complete"]
    ]
    tags = {bad: put_parts([again["missing"][0]["url"]], [b"y"])}
    body = {"status": "Active", "multi_parts_tags": tags}
    assert converter.call("PUT", f"/checkpoints/{checkpoint_id}", body).status_code == 202
    converter.parts.uploads.verify(checkpoint_id)
    assert shown(converter, checkpoint_id)["status"] == "Active"


def test_a_death_in_the_middle_of_a_conversion_leaves_nothing_of_it(
    converter: Service, monkeypatch: pytest.MonkeyPatch, copying: None
) -> None:
    uploaded = upload(converter, pickled())
    with monkeypatch.context() as patch:
        patch.setattr(converter.parts.storage, "complete_upload", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            converter.parts.uploads.verify(uploaded.id)
    folder = f"Lora/checkpoint/custom/{uploaded.id}/"
    assert len(converter.parts.storage.open_uploads(folder)) == 1
    converter.parts.uploads.verify(uploaded.id)
    assert shown(converter, uploaded.id)["status"] == "Active"
    assert converter.parts.storage.open_uploads(folder) == []
    assert len(keys(converter, uploaded.id)) == 1


def test_a_full_disk_gives_a_sentence(converter: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = upload(converter, pickled())
    monkeypatch.setattr(conversion, "FREE_BYTES_KEPT", 10**18)
    converter.parts.uploads.verify(uploaded.id)
    assert "of disk" in shown(converter, uploaded.id)["params"]["error"]


def test_pickles_can_be_refused_altogether(start_service: Callable[..., Service], source: Source) -> None:
    strict = start_service(CHECKPOINTS_PICKLES="refuse", CHECKPOINTS_IMPORT_ALLOW=source.host)
    strict.keep_to_itself()
    body = {"checkpoint_type": "Lora", "filenames": [{"filename": "a.ckpt", "parts_number": 1}]}
    answer = strict.call("POST", "/checkpoints", body)
    sentence = "a.ckpt is a .ckpt file, which can run code when it is loaded: convert it to safetensors first"
    assert (answer.status_code, answer.json["message"]) == (400, sentence)
    body = {"checkpoint_type": "Lora", "urls": [source.add(pickled(), "a.pth")]}
    checkpoint_id = strict.call("POST", "/checkpoints", body).json["data"]["checkpoint"]["id"]
    strict.parts.imports.run(checkpoint_id)
    assert "a.pth is a .pth file" in shown(strict, checkpoint_id)["params"]["error"]


def archive(*members: tuple[str, bytes], mode: str = "w") -> bytes:
    """A tar archive of these files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:
        for name, content in members:
            described = tarfile.TarInfo(name)
            described.size = len(content)
            tar.addfile(described, io.BytesIO(content))
    return made.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_gives_its_one_weight_file(converter: Service, mode: str) -> None:
    weights = safetensors(300)
    content = archive(("readme.txt", b"x"), ("../../deep/m.safetensors", weights), mode=mode)
    uploaded = upload(converter, content, ".tar")
    converter.parts.uploads.verify(uploaded.id)
    checkpoint = shown(converter, uploaded.id)
    name = uploaded.name.replace(".tar", ".safetensors")
    assert (checkpoint["status"], checkpoint["name"]) == ("Active", [name])
    key = f"Lora/checkpoint/custom/{uploaded.id}/{name}"
    assert converter.parts.storage.objects.read(key, 10**6) == weights


def test_a_pickle_in_an_archive_is_converted(converter: Service) -> None:
    uploaded = upload(converter, archive(("m.ckpt", pickled((1.5,), "emb_params"))), ".tar")
    converter.parts.uploads.verify(uploaded.id)
    assert shown(converter, uploaded.id)["status"] == "Active"


def bomb() -> bytes:
    """Zeros that grow a thousandfold."""
    return archive(("m.safetensors", bytes(20_000_000)), mode="w:gz")


def link() -> bytes:
    """A link instead of a file."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        described = tarfile.TarInfo("m.safetensors")
        described.type, described.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(described)
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (archive(("a.txt", b"x")), "it has no weight files, one is needed"),
        (archive(("a.ckpt", b"x"), ("b.safetensors", b"y")), "it has 2 weight files, one is needed"),
        (bomb(), "its members have more than"),
        (link(), "'m.safetensors' in it is no plain file"),
        (archive(*[(f"{n}.txt", b"") for n in range(1001)]), "it has more than 1000 members"),
        (archive(("m.safetensors", bytes(5000)))[:3000], "it is not a whole tar archive"),
        (b"no archive", "it is not a whole tar archive"),
    ],
    ids=["none", "two", "bomb", "link", "many", "cut", "nonsense"],
)
def test_an_archive_that_cannot_be_used_says_why(converter: Service, content: bytes, sentence: str) -> None:
    uploaded = upload(converter, content, ".tar")
    converter.parts.uploads.verify(uploaded.id)
    checkpoint = shown(converter, uploaded.id)
    assert checkpoint["status"] == "Initial"
    assert f"{uploaded.name} cannot be unpacked: {sentence}" in checkpoint["params"]["error"]
