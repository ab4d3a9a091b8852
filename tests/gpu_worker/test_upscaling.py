"""Upscalers: networks of every naming are built from their tensors, tiles leave no seam, faults are said."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gpu_worker.device import Device
from gpu_worker.errors import Cancelled, RequestFault
from gpu_worker.esrgan import CompactNet, RRDBNet, build
from gpu_worker.safetensors_header import read_header
from gpu_worker.upscaling import BUILT_IN, find_upscaler, load_upscaler, run_tiled, upscale_by
from tests.gpu_worker.contexts import context


def quiet() -> None: ...


def repeat_pixels(network: torch.nn.Module) -> torch.nn.Module:
    """Sets the weights so that the network makes every pixel a square of the same colour."""
    for parameter in network.parameters():
        parameter.data.zero_()
    if isinstance(network, RRDBNet):
        names = [
            "conv_first",
            *(f"conv_up{number}" for number in range(1, network.ups + 1)),
            "conv_hr",
            "conv_last",
        ]
        for name in names:
            weight = getattr(network, name).weight
            for channel in range(3):
                weight.data[channel, channel, 1, 1] = 1
    return network


def write_old_names(network: RRDBNet, path: Path) -> Path:
    """The names of the first ESRGAN."""
    blocks = len(network.body)
    tail = {"conv_up1": 3, "conv_up2": 6, "conv_hr": 8, "conv_last": 10}
    renamed = {}
    for key, tensor in network.state_dict().items():
        module, kind = key.rsplit(".", 1)
        parts = module.split(".")
        if parts[0] == "body":
            old = f"model.1.sub.{parts[1]}.{parts[2].upper()}.{parts[3]}.0"
        else:
            old = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}"}.get(module, "")
            old = old or f"model.{tail[module]}"
        renamed[f"{old}.{kind}"] = tensor
    save_file(renamed, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real files: x4, x2 (which sees the picture at half its size), compact, and the old names."""
    made: Path = tmp_path_factory.mktemp("upscalers")
    torch.manual_seed(0)
    with torch.no_grad():
        save_file(repeat_pixels(RRDBNet(8, 4, 2, ups=2, shuffle=1)).state_dict(), made / "plain4.safetensors")
        save_file(RRDBNet(8, 4, 2, ups=2, shuffle=2).state_dict(), made / "random2.safetensors")
        save_file(repeat_pixels(CompactNet(8, 2, 3)).state_dict(), made / "compact3.safetensors")
        write_old_names(RRDBNet(8, 4, 1, ups=2, shuffle=1), made / "old4.safetensors")
    return made


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (45, 70, 3), dtype=np.uint8))


@pytest.mark.parametrize(("file", "factor"), [("plain4", 4), ("compact3", 3)])
def test_a_network_that_repeats_pixels_gives_the_nearest_pixels(
    folder: Path, device: Device, noise: Image.Image, file: str, factor: int
) -> None:
    work = context(device, "extra-single-image", {}, {"Upscaler": [folder / f"{file}.safetensors"]})
    upscaler = find_upscaler(work, "upscaler_1", file)
    assert upscaler is not None
    made = upscaler.enlarge(noise, 4, quiet)
    wanted = noise.resize((noise.width * factor, noise.height * factor), Image.Resampling.NEAREST)
    assert np.abs(np.asarray(made, int) - np.asarray(wanted, int)).max() <= 1


@pytest.mark.parametrize("file", ["random2", "old4"])
def test_tiles_give_what_the_whole_picture_gives(
    folder: Path, device: Device, noise: Image.Image, file: str
) -> None:
    work = context(device, "extra-single-image", {}, {"Upscaler": [folder / f"{file}.safetensors"]})
    network = load_upscaler(work, work.job.of_type("Upscaler")[0]).network
    whole = np.asarray(run_tiled(network, noise, device, quiet, tile=256), int)
    tiled = np.asarray(run_tiled(network, noise, device, quiet, tile=32), int)
    assert whole.shape == (noise.height * network.scale, noise.width * network.scale, 3)
    assert whole.std() > 1
    assert np.abs(whole - tiled).max() <= 2


def test_old_names_are_the_same_network(tmp_path: Path) -> None:
    network = RRDBNet(8, 4, 2, ups=2, shuffle=1)
    path = write_old_names(network, tmp_path / "old.safetensors")
    _, names = build(read_header(path, "old"), "old")
    assert set(names.values()) == set(network.state_dict())


@pytest.mark.parametrize(
    ("factor", "size"), [(2.0, (136, 88)), (1.0, (64, 40)), (3.7, (256, 160)), (8.0, (560, 360))]
)
def test_sizes_are_multiples_of_eight_as_in_the_webui(
    folder: Path, device: Device, noise: Image.Image, factor: float, size: tuple[int, int]
) -> None:
    work = context(device, "extra-single-image", {}, {"Upscaler": [folder / "plain4.safetensors"]})
    for upscaler in (BUILT_IN["Lanczos"], BUILT_IN["Nearest"], find_upscaler(work, "upscaler_1", "plain4")):
        assert upscaler is not None
        assert upscale_by(noise, factor, upscaler, quiet).size == size


def test_transparency_survives(folder: Path, device: Device, noise: Image.Image) -> None:
    work = context(device, "extra-single-image", {}, {"Upscaler": [folder / "plain4.safetensors"]})
    upscaler = find_upscaler(work, "upscaler_1", "PLAIN4.safetensors")
    assert upscaler is not None
    noise.putalpha(Image.linear_gradient("L").resize(noise.size))
    made = upscaler.enlarge(noise, 2, quiet)
    assert made.mode == "RGBA"
    assert made.getpixel((5, 2))[3] < 10 < 240 < made.getpixel((5, made.height - 3))[3]


def test_a_stop_between_tiles_is_heard(folder: Path, device: Device, noise: Image.Image) -> None:
    work = context(device, "extra-single-image", {}, {"Upscaler": [folder / "old4.safetensors"]})
    network = load_upscaler(work, work.job.of_type("Upscaler")[0]).network
    asked = []

    def stop() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_tiled(network, noise, device, stop, tile=32)


def test_tiles_are_halved_when_memory_ends(folder: Path, device: Device, noise: Image.Image) -> None:
    work = context(device, "extra-single-image", {}, {"Upscaler": [folder / "old4.safetensors"]})
    network = load_upscaler(work, work.job.of_type("Upscaler")[0]).network
    whole = run_tiled(network, noise, device, quiet, tile=256)
    forward = network.forward

    def limited(x: torch.Tensor) -> torch.Tensor:
        if x.shape[-1] > 64 + 32:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(x)

    big = Image.new("RGB", (200, 45))
    big.paste(noise, (0, 0))
    network.forward = limited  # type: ignore[method-assign]
    made = run_tiled(network, big, device, quiet, tile=256)
    inner = (0, 0, 200, 180)
    difference = np.asarray(made.crop(inner), int) - np.asarray(whole.crop(inner), int)
    assert np.abs(difference).max() <= 2


def test_an_unknown_name_lists_what_there_is(folder: Path, device: Device) -> None:
    work = context(device, "extra-single-image", {}, {"Upscaler": [folder / "old4.safetensors"]})
    with pytest.raises(
        RequestFault, match="upscaler_2 'Magic' is not known: use None, Lanczos, Nearest, old4"
    ):
        find_upscaler(work, "upscaler_2", "Magic")


def test_the_webuis_names_find_the_files_that_it_downloads(folder: Path, device: Device) -> None:
    path = folder / "RealESRGAN_x4plus.safetensors"
    path.write_bytes((folder / "old4.safetensors").read_bytes())
    work = context(device, "extra-single-image", {}, {"Upscaler": [path]})
    upscaler = find_upscaler(work, "upscaler_1", "R-ESRGAN 4x+")
    assert upscaler is not None
    assert upscaler.name == "RealESRGAN_x4plus"


def test_a_file_of_another_kind_or_with_holes_is_the_requests_fault(tmp_path: Path, device: Device) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    tensors = RRDBNet(8, 4, 2, ups=2, shuffle=1).state_dict()
    del tensors["body.1.rdb2.conv3.weight"]
    save_file(tensors, tmp_path / "holes.safetensors")
    for name, says in (("other", "no family"), ("holes", 'tensor "body.1.rdb2.conv3.weight" is missing')):
        work = context(device, "extra-single-image", {}, {"Upscaler": [tmp_path / f"{name}.safetensors"]})
        with pytest.raises(RequestFault, match=says):
            find_upscaler(work, "upscaler_1", name)
