"""Finds the ONNX files of a job's models: background removal, tags, faces and depth come as such files."""

from pathlib import PurePosixPath

from gpu_worker.files import StoredFile
from gpu_worker.jobs import ModelFile
from gpu_worker.onnx_sessions import OnnxModel, open_session
from gpu_worker.tasks import TaskContext

ONNX = ".onnx"


def files_of(context: TaskContext, model_type: str, ending: str = ONNX) -> list[ModelFile]:
    """The job's files of a type with an ending."""
    return [
        file
        for file in context.job.of_type(model_type)
        if PurePosixPath(file.name).suffix.casefold() == ending
    ]


def load_onnx(context: TaskContext, file: ModelFile) -> OnnxModel:
    """The model of a file, from memory where it was used before; raises `RequestFault` for a bad file."""

    def load(stored: StoredFile) -> tuple[OnnxModel, int]:
        content = stored.path.read_bytes()
        return open_session(file.name, content), len(content)

    return context.memory.other("onnx", file, context.open_file, load)
