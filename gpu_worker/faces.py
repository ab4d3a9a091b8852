"""Finds faces in a picture and restores each with a GFPGAN or CodeFormer network of the job's models."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gpu_worker.errors import RequestFault
from gpu_worker.onnx_models import files_of, load_onnx
from gpu_worker.onnx_sessions import OnnxModel
from gpu_worker.tasks import TaskContext

FACE_TYPE = "FaceRestore"
DETECTOR = "yunet"
DETECTOR_FILE = "face_detection_yunet_2023mar.onnx"
RESTORER_FILES = {"GFPGAN": "GFPGANv1.4.onnx", "CodeFormer": "codeformer.onnx"}
DEFAULT_SIDE = 640
STRIDES = (8, 16, 32)
LEAST_SCORE = 0.7
OVERLAP = 0.3
FACE = 512
# Eyes, nose and corners of the mouth in an aligned face of 512 pixels, and the grey beyond the picture:
# facexlib/utils/face_restoration_helper.py, https://github.com/xinntao/facexlib.
TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ],
    dtype=np.float32,
)
BEYOND = (135, 133, 132)
SOFT_EDGE = 48

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FaceRestorer:
    """A detector and a network that restores aligned faces of 512 by 512 pixels."""

    kind: str
    detector: OnnxModel
    network: OnnxModel

    def restore(self, picture: Image.Image, weight: float | None, check: Callable[[], None]) -> Image.Image:
        """The picture with every face restored; `weight` is CodeFormer's fidelity from 0 to 1."""
        pixels = np.asarray(picture.convert("RGB"))
        result = pixels.astype(np.float32)
        for points in find_faces(self.detector, pixels):
            check()
            matrix, _ = cv2.estimateAffinePartial2D(points, TEMPLATE, method=cv2.LMEDS)
            if matrix is None:
                continue
            face = cv2.warpAffine(
                pixels, matrix, (FACE, FACE), borderMode=cv2.BORDER_CONSTANT, borderValue=BEYOND
            )
            result = _paste(result, self._restored(np.asarray(face), weight), np.asarray(matrix))
        made = Image.fromarray(result.round().clip(0, 255).astype(np.uint8))
        if picture.mode == "RGBA":
            made.putalpha(picture.getchannel("A"))
        return made

    def _restored(self, face: NDArray[np.uint8], weight: float | None) -> Array:
        scaled = (face.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
        inputs = [scaled]
        if len(self.network.inputs) > 1:
            # CodeFormer's export takes its weight as a second input; the WebUI's default is 0, the strongest.
            inputs.append(np.array([weight or 0.0]).reshape([1] * len(self.network.inputs[1][1])))
        made = self.network.run(*inputs)[0]
        if made.shape != (1, 3, FACE, FACE):
            raise RequestFault(
                f"{self.network.name} restores no faces: it makes an array of shape {made.shape}"
            )
        restored: Array = ((made[0].transpose(1, 2, 0).clip(-1, 1) + 1) * 127.5).astype(np.float32)
        return restored


def find_restorer(context: TaskContext, field: str, kind: str) -> FaceRestorer:
    """The restorer of a kind (``GFPGAN``, ``CodeFormer``) from the job's models; names what is missing."""
    files = files_of(context, FACE_TYPE)
    network = next((file for file in files if kind.casefold() in file.name.casefold()), None)
    detector = next((file for file in files if DETECTOR in file.name.casefold()), None)
    missing = [RESTORER_FILES[kind]] * (network is None) + [DETECTOR_FILE] * (detector is None)
    if network is None or detector is None:
        raise RequestFault(
            f"{field} needs {' and '.join(missing)} (or other .onnx files that have {kind} and "
            f"{DETECTOR} in their names) in models.{FACE_TYPE}"
        )
    return FaceRestorer(kind, load_onnx(context, detector), load_onnx(context, network))


def first_restorer(context: TaskContext, field: str, wanted: str = "") -> FaceRestorer:
    """The restorer of ``restore_faces``: the one that is `wanted`, else CodeFormer when its file is there, as
    in the WebUI, else GFPGAN."""
    if wanted:
        kinds = {kind.casefold(): kind for kind in RESTORER_FILES}
        if wanted.casefold() not in kinds:
            raise RequestFault(
                f"face_restoration_model {wanted[:60]!r} is not known; there are {', '.join(RESTORER_FILES)}"
            )
        return find_restorer(context, field, kinds[wanted.casefold()])
    names = [file.name.casefold() for file in files_of(context, FACE_TYPE)]
    has_codeformer = any("codeformer" in name for name in names)
    return find_restorer(context, field, "CodeFormer" if has_codeformer else "GFPGAN")


def find_faces(detector: OnnxModel, pixels: NDArray[np.uint8]) -> list[Array]:
    """Five points ``(5, 2)`` of each face, in pixels of the picture, the surest face first.

    How YuNet's outputs are read: ``modules/objdetect/src/face_detect.cpp`` of OpenCV.
    """
    shape = detector.inputs[0][1]
    height, width = (side or DEFAULT_SIDE for side in shape[2:]) if len(shape) == 4 else (0, 0)
    factor = min(width / pixels.shape[1], height / pixels.shape[0])
    small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)[:height, :width]
    canvas = np.zeros((height, width, 3), dtype=np.float32)
    canvas[: small.shape[0], : small.shape[1]] = small[..., ::-1]
    outputs = detector.named(detector.run(canvas.transpose(2, 0, 1)[None]))
    try:
        found = [_at_stride(outputs, stride, width, height) for stride in STRIDES]
    except (KeyError, ValueError) as error:
        raise RequestFault(f"{detector.name} finds no faces: its outputs are not those of YuNet") from error
    scores, boxes, points = (np.concatenate(part) for part in zip(*found, strict=True))
    sure = scores > LEAST_SCORE
    scores, boxes, points = scores[sure], boxes[sure], points[sure]
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), LEAST_SCORE, OVERLAP)
    return [(points[index] / factor).astype(np.float32) for index in np.array(kept, dtype=int).flatten()]


def _at_stride(outputs: dict[str, Array], stride: int, width: int, height: int) -> tuple[Array, Array, Array]:
    rows, columns = height // stride, width // stride
    cells = rows * columns
    sureness = [outputs[f"{name}_{stride}"].reshape(cells).clip(0, 1) for name in ("cls", "obj")]
    box = outputs[f"bbox_{stride}"].reshape(cells, 4)
    points = outputs[f"kps_{stride}"].reshape(cells, 5, 2)
    row, column = np.divmod(np.arange(cells), columns)
    corner = np.stack([column, row], axis=1)
    size = np.exp(box[:, 2:].clip(-20, math.log(4 * max(rows, columns, 2)))) * stride
    centre = (corner + box[:, :2]) * stride
    boxes = np.concatenate([centre - size / 2, size], axis=1)
    return np.sqrt(sureness[0] * sureness[1]), boxes, (points + corner[:, None]) * stride


def _paste(result: Array, face: Array, matrix: NDArray[np.float64]) -> Array:
    """Puts an aligned face back where it was, with a soft edge."""
    inverse = cv2.invertAffineTransform(matrix)
    size = (result.shape[1], result.shape[0])
    mask = np.zeros((FACE, FACE), dtype=np.float32)
    mask[SOFT_EDGE:-SOFT_EDGE, SOFT_EDGE:-SOFT_EDGE] = 1
    soft = cv2.GaussianBlur(mask, (0, 0), SOFT_EDGE / 3)
    cover = np.asarray(cv2.warpAffine(np.asarray(soft), inverse, size))[..., None]
    placed = np.asarray(cv2.warpAffine(face, inverse, size, flags=cv2.INTER_AREA))
    return np.asarray(result * (1 - cover) + placed * cover, dtype=np.float32)
