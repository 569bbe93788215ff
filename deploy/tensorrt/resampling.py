"""Preprocessing on a GPU: antialiased resizing as two matrix products, normalised and padded.

TensorRT's resize has no antialiasing. Linear resizing of rows and columns is a product with two sparse matrices, which
depend on the frame's size alone: they are computed once per stream on the host, and zero where the image is padding.
The graph `resample` does the rest; its values are those of lstfe/data/transforms.py.
Shapes: frame h x w, image H x W padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lstfe.config import ModelConfig
from lstfe.image_size import PAD_MULTIPLE, model_input_size
from lstfe.types import FloatArray

if TYPE_CHECKING:  # engines are run without onnx
    import onnx

NAME = "resample"


@dataclass(frozen=True, slots=True)
class Resampling:
    """What the graph needs beside the frame."""

    image_size: tuple[int, int]
    """(height, width) before the padding."""
    row_weights: FloatArray
    """(H, h)."""
    column_weights: FloatArray
    """(w, W)."""
    inside: FloatArray
    """(H, W) 1 inside the image, 0 where it is padded."""


def padded_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) with the padding."""
    height, width = (-(-side // PAD_MULTIPLE) * PAD_MULTIPLE for side in image_size)
    return height, width


def resampling_of(frame_size: tuple[int, int], config: ModelConfig) -> Resampling:
    """Compute the matrices for frames of one (height, width)."""
    size = model_input_size(frame_size, config)
    rows, columns = padded_size(size)
    # PyTorch antialiases both sides or neither; without it, a side that shrinks not at all has the same weights.
    antialias = size[0] < frame_size[0] or size[1] < frame_size[1]
    row_weights = np.zeros((rows, frame_size[0]), np.float32)
    column_weights = np.zeros((frame_size[1], columns), np.float32)
    inside = np.zeros((rows, columns), np.float32)
    row_weights[: size[0]] = _weights(frame_size[0], size[0], antialias=antialias)
    column_weights[:, : size[1]] = _weights(frame_size[1], size[1], antialias=antialias).T
    inside[: size[0], : size[1]] = 1
    return Resampling(size, row_weights, column_weights, inside)


def _weights(old: int, new: int, *, antialias: bool) -> FloatArray:
    """Return the triangle filter of a resize from `old` to `new` pixels, half-pixel centres: (new, old)."""
    scale = old / new
    support = max(scale, 1.0) if antialias else 1.0
    centers = (np.arange(new) + 0.5) * scale - 0.5
    if not antialias:
        centers = np.clip(centers, 0, old - 1)
    distances = np.abs(np.arange(old) - centers[:, None]) / support
    weights = np.maximum(0.0, 1.0 - distances)
    normalised: FloatArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised


def resample_model(opset: int, image_type: int) -> onnx.ModelProto:
    """Build frame (h, w, 3) uint8 RGB, row_weights, column_weights, inside -> image (1, 3, H, W) of `image_type`.

    `image_type` is the ONNX type that the graph `backbone` takes; all before the last cast is float32.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    value, single = helper.make_tensor_value_info, TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["frame"], ["pixels"], to=single),
        helper.make_node("Transpose", ["pixels"], ["channels"], perm=[2, 0, 1]),
        helper.make_node("MatMul", ["row_weights", "channels"], ["rows"]),  # (3, H, w)
        helper.make_node("MatMul", ["rows", "column_weights"], ["resized"]),  # (3, H, W)
        helper.make_node(
            "Mul", ["inside", "mean"], ["means"]
        ),  # 0 in the padding, where the pixels are 0, too
        helper.make_node("Sub", ["resized", "means"], ["centered"]),
        helper.make_node("Div", ["centered", "std"], ["normalised"]),
        helper.make_node("Unsqueeze", ["normalised", "axes"], ["batch"]),
        helper.make_node("Cast", ["batch"], ["image"], to=image_type),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [
            value("frame", TensorProto.UINT8, ["frame_height", "frame_width", 3]),
            value("row_weights", single, ["H", "frame_height"]),
            value("column_weights", single, ["frame_width", "W"]),
            value("inside", single, ["H", "W"]),
        ],
        [value("image", image_type, [1, 3, "H", "W"])],
        [numpy_helper.from_array(array, name) for name, array in _constants().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _constants() -> dict[str, Any]:
    from lstfe.data.transforms import IMAGE_MEAN, IMAGE_STD

    return {
        "mean": np.array(IMAGE_MEAN, np.float32).reshape(3, 1, 1) * np.float32(255),
        "std": np.array(IMAGE_STD, np.float32).reshape(3, 1, 1) * np.float32(255),
        "axes": np.array([0], np.int64),
    }
