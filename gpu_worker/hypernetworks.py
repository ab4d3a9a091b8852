"""Hypernetworks: small networks that change what the UNet's attention takes its keys and values from.

Format and effect: ``modules/hypernetworks/hypernetwork.py`` of the WebUI. A file holds, for some widths of
attention input, a network for keys and one for values; ``WIDTH.0.linear.N.weight`` and ``WIDTH.1.…`` once its
pickle is converted. What no tensor tells (the activation) is in the metadata.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gpu_worker.device import Device
from gpu_worker.errors import RequestFault
from gpu_worker.files import StoredFile
from gpu_worker.networks import Use
from gpu_worker.safetensors_header import read_header

KEY = re.compile(r"(\d{1,5})\.([01])\.linear\.?(\d{1,3})\.(weight|bias)")
# WebUI's names of the first versions: linear1 and linear2.
OLD_KEY = re.compile(r"(\d{1,5})\.([01])\.linear([12])\.(weight|bias)")
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,
    "elu": nn.ELU,
    "swish": nn.Hardswish,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
}

# What changes the input of the keys and that of the values, by the input's width.
Layers = Mapping[int, tuple[nn.Module, nn.Module]]


@dataclass(frozen=True, slots=True)
class Hypernetwork:
    """A hypernetwork in memory, and the first ten digits of its file's sha256."""

    name: str
    short_hash: str
    layers: Layers

    def check(self, unet: Any, checkpoint: str) -> None:
        """Raises `RequestFault` unless it knows the width of the checkpoint's texts."""
        width = unet.config.cross_attention_dim
        if width not in self.layers:
            raise RequestFault(
                f"hypernetwork {self.name} is made for texts of width {_listed(self.layers)}, checkpoint "
                f"{checkpoint} has {width}: it belongs to another kind of Stable Diffusion"
            )


def read_hypernetwork(stored: StoredFile, name: str, device: Device) -> tuple[Hypernetwork, int]:
    """A hypernetwork and its bytes in memory; raises `RequestFault` when the file is at fault."""
    header = read_header(stored.path, name)
    tensors: dict[tuple[int, int], dict[int, dict[str, Tensor]]] = {}
    for key, tensor in load_file(stored.path).items():
        if match := OLD_KEY.fullmatch(key):
            place = int(match[3]) - 1
        elif match := KEY.fullmatch(key):
            place = int(match[3])
        else:
            continue
        tensors.setdefault((int(match[1]), int(match[2])), {}).setdefault(place, {})[match[4]] = tensor
    widths = {width for width, _ in tensors if {(width, 0), (width, 1)} <= tensors.keys()}
    if not widths:
        raise RequestFault(f"{name} is no hypernetwork: it holds no layers for keys and values")
    layers = {
        width: (
            _network(tensors[width, 0], width, header.metadata, name).to(device.torch_device, device.dtype),
            _network(tensors[width, 1], width, header.metadata, name).to(device.torch_device, device.dtype),
        )
        for width in sorted(widths)
    }
    size = sum(p.numel() * p.element_size() for pair in layers.values() for n in pair for p in n.parameters())
    return Hypernetwork(name, stored.short_hash, layers), size


def _network(
    parts: dict[int, dict[str, Tensor]], width: int, metadata: Mapping[str, str], name: str
) -> nn.Sequential:
    """``HypernetworkModule.__init__`` of the WebUI, from the tensors that it left."""
    activation = metadata.get("activation_func", "linear").lower()
    if activation not in ("linear", "none") and activation not in ACTIVATIONS:
        raise RequestFault(f"hypernetwork {name} uses the activation {activation[:40]!r}, which is not known")
    linears = [place for place, tensors in sorted(parts.items()) if _weight(tensors, name).dim() == 2]
    activated = set(linears if metadata.get("activate_output") == "True" else linears[:-1])
    modules: list[nn.Module] = []
    now = width
    for place, tensors in sorted(parts.items()):
        weight, bias = _weight(tensors, name), tensors.get("bias")
        if weight.dim() == 2 and weight.shape[1] == now and (bias is None or bias.shape == weight.shape[:1]):
            modules.append(_filled(nn.Linear(now, weight.shape[0], bias=bias is not None), tensors))
            now = weight.shape[0]
            if place in activated and activation in ACTIVATIONS:
                modules.append(ACTIVATIONS[activation]())
        elif weight.shape == (now,) and (bias is None or bias.shape == (now,)):
            modules.append(_filled(nn.LayerNorm(now, bias=bias is not None), tensors))
        else:
            raise RequestFault(f"hypernetwork {name} cannot be used: its layers of width {width} do not fit")
    if now != width:
        raise RequestFault(f"hypernetwork {name} cannot be used: its layers turn width {width} into {now}")
    return nn.Sequential(*modules).requires_grad_(False).eval()


def _weight(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if "weight" not in tensors:
        raise RequestFault(f"hypernetwork {name} cannot be used: a layer lacks its weight")
    return tensors["weight"]


def _filled(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return module


@contextmanager
def attached(unet: Any, checkpoint: str, uses: Sequence[Use]) -> Iterator[None]:
    """Inside the block the UNet's attention takes keys and values through the hypernetworks.

    Raises `RequestFault` for one of another architecture.
    """
    found: list[tuple[Layers, float]] = []
    for use in uses:
        if use.unet:
            network: Hypernetwork = use.load()
            network.check(unet, checkpoint)
            found.append((network.layers, use.unet))
    with through(unet, found):
        yield


@contextmanager
def through(unet: Any, uses: Sequence[tuple[Layers, float]]) -> Iterator[None]:
    """Inside the block keys and values are made of x + weight·f(x), for each of the networks in turn."""
    with ExitStack() as hooks:
        if uses:
            # Compiled blocks do not look for hooks that came later.
            hooks.enter_context(torch.compiler.set_stance("force_eager"))
        for module in unet.modules() if uses else ():
            for place, part in enumerate(("to_k", "to_v")):
                target = getattr(module, part, None)
                if isinstance(target, nn.Module):
                    width: Any = target.in_features
                    networks = [(layers[width][place], weight) for layers, weight in uses if width in layers]
                    if networks:
                        hooks.callback(target.register_forward_pre_hook(_Change(networks)).remove)
        yield


class _Change:
    """A hook that passes a layer's input through the networks, one after the other."""

    def __init__(self, networks: Sequence[tuple[nn.Module, float]]) -> None:
        self._networks = networks

    def __call__(self, _module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *rest = arguments
        for network, weight in self._networks:
            hidden = hidden + network(hidden) * weight
        return (hidden, *rest)


def _listed(widths: Mapping[int, Any]) -> str:
    return " and ".join(str(width) for width in sorted(widths)[:6])
