"""The `preprocess` graph: resize, normalise and pad a frame as `lstfe.data.transforms` does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lstfe.config import ModelConfig
from lstfe.data.transforms import IMAGE_MEAN, IMAGE_STD
from lstfe.image_size import PAD_MULTIPLE


def preprocess_model(config: ModelConfig, opset: int) -> onnx.ModelProto:
    """Build frame (height, width, 3) uint8 RGB -> image (1, 3, H, W) float32, image_size (2,) int64."""
    nodes = [
        # model_input_size, in double precision as Python computes it; Round is half to even like Python's.
        helper.make_node("Shape", ["frame"], ["frame_size"], end=2),
        helper.make_node("Cast", ["frame_size"], ["sides"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceMin", ["sides", "axes"], ["shorter"]),
        helper.make_node("ReduceMax", ["sides", "axes"], ["longer"]),
        helper.make_node("Div", ["short_side", "shorter"], ["short_scale"]),
        helper.make_node("Div", ["long_side", "longer"], ["long_scale"]),
        helper.make_node("Min", ["short_scale", "long_scale"], ["scale"]),
        helper.make_node("Mul", ["sides", "scale"], ["exact_size"]),
        helper.make_node("Round", ["exact_size"], ["rounded_size"]),
        helper.make_node("Cast", ["rounded_size"], ["rounded_sides"], to=TensorProto.INT64),
        helper.make_node("Max", ["rounded_sides", "one"], ["image_size"]),
        # to_model_input
        helper.make_node("Cast", ["frame"], ["rows"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["rows"], ["channels"], perm=[2, 0, 1]),
        helper.make_node("Unsqueeze", ["channels", "axes"], ["batch"]),
        helper.make_node("Concat", ["batch_and_channels", "image_size"], ["resized_shape"], axis=0),
        helper.make_node(
            "Resize",
            ["batch", "", "", "resized_shape"],
            ["resized"],
            mode="linear",
            antialias=1,
            exclude_outside=1,
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Sub", ["resized", "mean"], ["centered"]),
        helper.make_node("Div", ["centered", "std"], ["normalised"]),
        # pad_to_one_size: ONNX's Mod takes the divisor's sign, so this is what is missing to the multiple.
        helper.make_node("Neg", ["image_size"], ["negated"]),
        helper.make_node("Mod", ["negated", "multiple"], ["missing"]),
        helper.make_node("Concat", ["no_padding", "missing"], ["pads"], axis=0),
        helper.make_node("Pad", ["normalised", "pads", "", "padded_axes"], ["image"]),
    ]
    graph = helper.make_graph(
        nodes,
        "preprocess",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["height", "width", 3])],
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "H", "W"]),
            helper.make_tensor_value_info("image_size", TensorProto.INT64, [2]),
        ],
        [numpy_helper.from_array(value, name) for name, value in _constants(config).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _constants(config: ModelConfig) -> dict[str, npt.NDArray[Any]]:
    return {
        "mean": np.array(IMAGE_MEAN, np.float32).reshape(3, 1, 1) * np.float32(255),
        "std": np.array(IMAGE_STD, np.float32).reshape(3, 1, 1) * np.float32(255),
        "short_side": np.array([config.image_short_side], np.float64),
        "long_side": np.array([config.image_long_side], np.float64),
        "axes": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "batch_and_channels": np.array([1, 3], np.int64),
        "multiple": np.array([PAD_MULTIPLE], np.int64),
        "padded_axes": np.array([2, 3], np.int64),
        "no_padding": np.zeros(2, np.int64),
    }
