"""The networks of the ESRGAN family (RRDBNet, the compact SRVGGNet), told apart and built by their tensors.

Structure and names: BasicSR's ``rrdbnet_arch.py`` and ``srvgg_arch.py``, and the names of the first ESRGAN,
https://github.com/xinntao. Spandrel, which loads more families, imports torchvision, whose wheels work only
with the PyTorch build that they were made for.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from gpu_worker.errors import RequestFault
from gpu_worker.safetensors_header import Header

SLOPE = 0.2
RESIDUAL = 0.2
MOST_BLOCKS = 64
MOST_SCALE = 8

# Each pair turns an older name into BasicSR's.
_FIRST_NAMES = (
    (r"^model\.0\.", "conv_first."),
    (r"^model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)(?:\.0)?\.", r"body.\1.rdb\2.conv\3."),
    (r"^model\.1\.sub\.\d+\.(weight|bias)$", r"conv_body.\1"),
)
_SECOND_NAMES = (
    (r"^RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)\.", r"body.\1.rdb\2.conv\3."),
    (r"^trunk_conv\.", "conv_body."),
    (r"^upconv(\d)\.", r"conv_up\1."),
    (r"^HRconv\.", "conv_hr."),
)


class _DenseBlock(nn.Module):
    """Five convolutions, each of which sees the results of all before it."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for number in range(1, 6):
            out = width if number == 5 else growth
            setattr(self, f"conv{number}", nn.Conv2d(width + (number - 1) * growth, out, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [x]
        for number in range(1, 5):
            convolution = getattr(self, f"conv{number}")
            seen.append(functional.leaky_relu(convolution(torch.cat(seen, 1)), SLOPE))
        residual: torch.Tensor = self.conv5(torch.cat(seen, 1))  # type: ignore[operator]
        return x + residual * RESIDUAL


class _Block(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = _DenseBlock(width, growth)
        self.rdb2 = _DenseBlock(width, growth)
        self.rdb3 = _DenseBlock(width, growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + residual * RESIDUAL


class RRDBNet(nn.Module):
    """ESRGAN and Real-ESRGAN; `shuffle` is how much smaller the network sees the picture (its x1 and x2)."""

    def __init__(self, width: int, growth: int, blocks: int, ups: int, shuffle: int) -> None:
        super().__init__()
        self.scale = 2**ups // shuffle
        self.shuffle = shuffle
        self.ups = ups
        self.conv_first = nn.Conv2d(3 * shuffle**2, width, 3, 1, 1)
        self.body = nn.Sequential(*(_Block(width, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(width, width, 3, 1, 1)
        for number in range(1, ups + 1):
            setattr(self, f"conv_up{number}", nn.Conv2d(width, width, 3, 1, 1))
        self.conv_hr = nn.Conv2d(width, width, 3, 1, 1)
        self.conv_last = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, 3, h, w)`` in 0…1 to ``(n, 3, h·scale, w·scale)``; any size of picture."""
        height, width = x.shape[-2:]
        if self.shuffle > 1:
            x = functional.pad(x, (0, -width % self.shuffle, 0, -height % self.shuffle), "replicate")
            x = functional.pixel_unshuffle(x, self.shuffle)
        x = self.conv_first(x)
        x = x + self.conv_body(self.body(x))
        for number in range(1, self.ups + 1):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = functional.leaky_relu(getattr(self, f"conv_up{number}")(x), SLOPE)
        x = self.conv_last(functional.leaky_relu(self.conv_hr(x), SLOPE))
        return x[..., : height * self.scale, : width * self.scale]


class CompactNet(nn.Module):
    """Real-ESRGAN's small network (``realesr-general-x4v3``), which adds to the nearest pixels."""

    def __init__(self, width: int, convolutions: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1), nn.PReLU(width)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3 * scale**2, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, 3, h, w)`` in 0…1 to ``(n, 3, h·scale, w·scale)``."""
        nearest = functional.interpolate(x, scale_factor=self.scale, mode="nearest")
        return functional.pixel_shuffle(self.body(x), self.scale) + nearest


Network = RRDBNet | CompactNet


def build(header: Header, name: str) -> tuple[Network, dict[str, str]]:
    """An empty network (on torch's meta device) for a file, and its names by those of the file's tensors.

    Raises `RequestFault` when the file is of no known family, or lacks a tensor.
    """
    shapes = {key: entry.shape for key, entry in header.tensors.items()}
    names = {key: _modern_name(key, shapes) for key in shapes}
    known = {new: shapes[old] for old, new in names.items()}
    with torch.device("meta"):
        network = _rrdb(known) or _compact(known)
    if network is None:
        raise RequestFault(
            f"upscaler {name} is of no family that this worker knows (ESRGAN, Real-ESRGAN, its compact ones)"
        )
    for key, tensor in network.state_dict().items():
        if known.get(key) != tuple(tensor.shape):
            found = f"has shape {list(known[key])}" if key in known else "is missing"
            raise RequestFault(f'upscaler {name} cannot be used: its tensor "{key}" {found}')
    return network, {old: new for old, new in names.items() if new in network.state_dict()}


def _rrdb(shapes: Mapping[str, tuple[int, ...]]) -> RRDBNet | None:
    first, growth = shapes.get("conv_first.weight"), shapes.get("body.0.rdb1.conv1.weight")
    blocks = _count(shapes, r"^body\.(\d+)\.rdb1\.")
    ups = _count(shapes, r"^conv_up(\d)\.weight$")
    if first is None or growth is None or len(first) != 4 or len(growth) != 4 or not blocks <= MOST_BLOCKS:
        return None
    shuffle = math.isqrt(first[1] // 3)
    if shuffle < 1 or first[1] != 3 * shuffle**2 or not 1 <= 2**ups // shuffle <= MOST_SCALE:
        return None
    return RRDBNet(first[0], growth[0], blocks, ups, shuffle)


def _compact(shapes: Mapping[str, tuple[int, ...]]) -> CompactNet | None:
    last = _count(shapes, r"^body\.(\d+)\.") - 1
    first, final = shapes.get("body.0.weight"), shapes.get(f"body.{last}.weight")
    if (
        first is None
        or final is None
        or len(first) != 4
        or len(final) != 4
        or not 4 <= last <= 4 * MOST_BLOCKS
    ):
        return None
    scale = math.isqrt(final[0] // 3)
    if not 1 <= scale <= MOST_SCALE or final[0] != 3 * scale**2:
        return None
    return CompactNet(first[0], last // 2 - 1, scale)


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    """One more than the highest number that the pattern finds, or for ``conv_up`` that number."""
    numbers = [int(match[1]) for key in shapes if len(key) < 200 and (match := re.match(pattern, key))]
    highest = max(numbers, default=-1)
    return max(0, highest) if "conv_up" in pattern else highest + 1


def _modern_name(key: str, shapes: Mapping[str, Any]) -> str:
    for pattern, replacement in _FIRST_NAMES + _SECOND_NAMES:
        changed = re.sub(pattern, replacement, key)
        if changed != key:
            return changed
    if match := re.match(r"^model\.(\d+)\.(weight|bias)$", key):
        return f"{_tail_names(shapes).get(int(match[1]), match[1])}.{match[2]}"
    return key


def _tail_names(shapes: Mapping[str, Any]) -> dict[int, str]:
    """The first ESRGAN numbered what follows its blocks: the enlargements, then two more convolutions."""
    tail = sorted(
        {int(match[1]) for key in shapes if (match := re.match(r"^model\.(\d+)\.weight$", key))} - {0, 1}
    )
    ups = {number: f"conv_up{place}" for place, number in enumerate(tail[:-2], 1)}
    return ups | dict(zip(tail[-2:], ("conv_hr", "conv_last"), strict=False))
