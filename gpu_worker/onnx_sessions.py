"""ONNX graphs in memory, opened from bytes and run on numpy arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from gpu_worker.errors import RequestFault

FATAL_ONLY = 4
NUMBERS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A loaded graph; `inputs` are names, shapes (None where any size goes) and element types."""

    name: str
    session: Any
    inputs: tuple[tuple[str, tuple[int | None, ...], str], ...]

    def run(self, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
        """The graph's outputs for its inputs in order, cast to what it wants; raises `RequestFault`."""
        if len(arrays) != len(self.inputs):
            raise RequestFault(f"{self.name} wants {len(self.inputs)} inputs, such a model has {len(arrays)}")
        feed = {
            name: array.astype(NUMBERS.get(kind, array.dtype))
            for (name, _, kind), array in zip(self.inputs, arrays, strict=True)
        }
        try:
            outputs: list[NDArray[Any]] = self.session.run(None, feed)
        except Exception as error:
            # onnxruntime's errors have no common class; what a graph says about its input is the file's.
            raise RequestFault(f"{self.name} cannot be run: {_first_line(error)}") from error
        return outputs

    def named(self, outputs: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Outputs of `run` by their names in the file."""
        return dict(zip((output.name for output in self.session.get_outputs()), outputs, strict=True))


def open_session(name: str, content: bytes) -> OnnxModel:
    """A graph of a file's bytes: it may then not name other files of this machine as its weights.

    Raises `RequestFault` for what is no such file.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [provider for provider in wanted if provider in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:
        raise RequestFault(f"{name} is no ONNX file that can be run: {_first_line(error)}") from error
    inputs = tuple((one.name, tuple(map(_side, one.shape)), one.type) for one in session.get_inputs())
    return OnnxModel(name, session, inputs)


def _side(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
