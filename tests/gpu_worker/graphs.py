"""Tiny ONNX graphs that do visibly what the published ones do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write(
    path: Path,
    nodes: Sequence[Any],
    inputs: dict[str, list[Any]],
    outputs: dict[str, Any],
    constants: Any = None,
    kinds: Mapping[str, int] | None = None,
) -> Path:
    """A graph of inputs and outputs by name and shape, floats but for `kinds`; `constants` are arrays."""
    types = dict.fromkeys(inputs, TensorProto.FLOAT) | dict(kinds or {})
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, types[name], shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def segmentation(path: Path, side: int = 32) -> Path:
    """Takes what is bright for the subject."""
    nodes = [helper.make_node("ReduceMean", ["input"], ["mask"], axes=[1], keepdims=1)]
    return write(path, nodes, {"input": [1, 3, side, side]}, {"mask": [1, 1, side, side]})


def tagger(path: Path, side: int = 8) -> Path:
    """Is as sure of its three tags as blue, green and red are strong, counted as a WD tagger counts."""
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Div", ["mean", "most"], ["output"]),
    ]
    constants = {"most": np.float32(255)}
    return write(path, nodes, {"input": ["n", side, side, 3]}, {"output": ["n", 3]}, constants)


def face_detector(path: Path, points: Sequence[tuple[float, float]], side: int = 64) -> Path:
    """A YuNet that sees one face with these five points, in pixels of its `side`, in every picture."""
    constants: dict[str, Any] = {}
    for stride in (8, 16, 32):
        columns = side // stride
        cells = columns * columns
        arrays = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
        made = {name: np.zeros((1, cells, width), np.float32) for name, width in arrays.items()}
        if stride == 8:
            row = column = columns // 2
            place = row * columns + column
            made["cls"][0, place] = made["obj"][0, place] = 1
            made["bbox"][0, place] = [0, 0, np.log(4), np.log(4)]
            offsets = np.array(points) / stride - np.array([column, row])
            made["kps"][0, place] = offsets.reshape(10)
        constants |= {f"{name}_{stride}_value": array for name, array in made.items()}
    nodes = [
        helper.make_node("Identity", [name], [name.removesuffix("_value")], name=name) for name in constants
    ]
    outputs = {name.removesuffix("_value"): list(array.shape) for name, array in constants.items()}
    return write(path, nodes, {"input": [1, 3, side, side]}, outputs, constants)


def inverter(path: Path, side: int = 512) -> Path:
    """A face restorer that turns every colour into its opposite."""
    nodes = [helper.make_node("Neg", ["input"], ["output"])]
    shape = [1, 3, side, side]
    return write(path, nodes, {"input": shape}, {"output": shape})


def codeformer(path: Path, side: int = 512) -> Path:
    """A face restorer with CodeFormer's two inputs: at weight 1 it keeps colours, at 0 it makes them grey."""
    nodes = [
        helper.make_node("Cast", ["weight"], ["share"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["input", "share"], ["output"]),
    ]
    shape = [1, 3, side, side]
    inputs = {"input": shape, "weight": [1]}
    return write(path, nodes, inputs, {"output": shape}, kinds={"weight": TensorProto.DOUBLE})
