"""Which ONNX opset a TensorRT version may be given, and the way down to it.

TensorRT's parsers before 10 accept nodes that they do not know how to read: a Reduce whose axes are an input reduces
over all axes, a Shape with `start` and `end` gives the whole shape (8.5 to 9.3). Nothing is said, and the
results are wrong. So graphs for them are rewritten to opset 17, the newest that 8.5 knows, with neither of these, and
`require_opset` refuses others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from deploy.tensorrt_graphs.operators import attributes_of
from deploy.tensorrt_graphs.rewrite import drop_unused, replace_nodes
from lstfe.errors import UserError

NEWEST_OPSETS = {(8, 5): 17, (10, 0): 20}
"""TensorRT version -> the newest opset of our graphs that its parser reads rightly, up to the next entry's version
(onnx-tensorrt's docs/operators.md and its importers, branches 8.5-GA to 10.1-GA)."""
OLDEST_OPSET = 17
"""RoiAlign and LayerNormalization by today's rules, and the opset of the oldest TensorRT supported."""

# Operators that moved `axes` from an attribute to an input in opset 18.
_REDUCTIONS = {
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
}
# What later opsets added to operators that are otherwise the same; the values are those of the old meaning.
_NEWER_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Cast": {"saturate": 1},
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
    "ScatterND": {"reduction": b"none"},
    "QuantizeLinear": {"saturate": 1, "block_size": 0, "output_dtype": 0},
    "DequantizeLinear": {"block_size": 0},
}
# Operators without a form in opset 17; LstfeDeformConv2d takes the place of the first.
_UNKNOWN = {
    "DeformConv",
    "GroupNormalization",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseNot",
    "CenterCropPad",
    "Mish",
}


class OpsetError(UserError):
    """A graph's opset is not one that a TensorRT version reads rightly."""


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model is written for."""
    return max(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def opset_for(tensorrt_version: str) -> int:
    """Return the opset of the graphs for a TensorRT version ("8.6.1"); raises OpsetError below 8.5."""
    return _newest(tensorrt_version)


def require_opset(model: onnx.ModelProto, tensorrt_version: str) -> None:
    """Refuse, with OpsetError, a model that a TensorRT version ("8.6.1") would not read or would read wrongly."""
    found, newest = opset_of(model), _newest(tensorrt_version)
    if not OLDEST_OPSET <= found <= newest:
        raise OpsetError(
            f"graph {model.graph.name} has opset {found}, TensorRT {tensorrt_version} reads {OLDEST_OPSET} to "
            f"{newest} rightly; write the graphs again for opset {opset_for(tensorrt_version)}"
        )
    if found == 17 and (wrong := _not_of_opset_17(model)):
        raise OpsetError(
            f"graph {model.graph.name} says opset 17 but {wrong}, which TensorRT {tensorrt_version} would read "
            "wrongly; write the graphs again for opset 17"
        )


def lower_to_17(model: onnx.ModelProto) -> None:
    """Rewrite a model of opset 17..21 to opset 17, in place; raises OpsetError where an operator has no form there."""
    cut_whole_shapes(model)
    constants = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            nodes.append(node)
        elif node.op_type in _UNKNOWN:
            raise OpsetError(f"graph {model.graph.name}: {node.op_type} has no form in opset 17")
        elif node.op_type in _REDUCTIONS:
            _axes_to_attribute(node, constants, model.graph.name)
            nodes.append(node)
        else:
            _drop_newer_attributes(node, model.graph.name)
            nodes.append(node)
    replace_nodes(model, nodes)
    drop_unused(model)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = 17
    model.ir_version = 8  # of the ONNX release that opset 17 came with
    onnx.checker.check_model(model)


def cut_whole_shapes(model: onnx.ModelProto) -> None:
    """Let a Slice cut what `start` and `end` of a Shape would, in place; parsers before 10 ignore both."""
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes += _whole_shape(node, model) if node.op_type == "Shape" else [node]
    replace_nodes(model, nodes)


def _newest(tensorrt_version: str) -> int:
    number = _number(tensorrt_version)
    known = [version for version in NEWEST_OPSETS if version <= number]
    if not known:
        raise OpsetError(f"TensorRT {tensorrt_version} is too old, expected 8.5 or newer")
    return NEWEST_OPSETS[max(known)]


def _number(version: str) -> tuple[int, int]:
    parts = version.split(".")
    try:
        return int(parts[0]), int(parts[1])
    except (IndexError, ValueError):
        raise OpsetError(f"TensorRT version {version!r} is not understood, expected one like 8.6.1") from None


def _not_of_opset_17(model: onnx.ModelProto) -> str | None:
    for node in model.graph.node:
        attributes = attributes_of(node)
        if node.op_type in _REDUCTIONS and len(node.input) > 1:
            return f"{node.op_type} has its axes as an input"
        if node.op_type == "Shape" and attributes:
            return "Shape has a start or an end"
        if node.op_type in _UNKNOWN:
            return f"{node.op_type} is in it"
    return None


def _axes_to_attribute(node: onnx.NodeProto, constants: dict[str, npt.NDArray[Any]], graph: str) -> None:
    attributes = attributes_of(node)
    axes = constants.get(node.input[1]) if len(node.input) > 1 else None
    if len(node.input) > 1 and node.input[1] and axes is None:
        raise OpsetError(f"graph {graph}: the axes of {node.op_type} are computed, opset 17 wants them fixed")
    if axes is None and attributes.get("noop_with_empty_axes"):
        raise OpsetError(
            f"graph {graph}: {node.op_type} without axes that does nothing has no form in opset 17"
        )
    del node.input[1:]
    kept = [attribute for attribute in node.attribute if attribute.name == "keepdims"]
    del node.attribute[:]
    node.attribute.extend(kept)
    if axes is not None:
        node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes.flatten()]))


def _whole_shape(node: onnx.NodeProto, model: onnx.ModelProto) -> list[onnx.NodeProto]:
    attributes = attributes_of(node)
    start, end = attributes.get("start", 0), attributes.get("end")
    if start == 0 and end is None:
        del node.attribute[:]
        return [node]
    result, whole = node.output[0], f"{node.output[0]}_whole"
    bounds = {f"{result}_start": start, f"{result}_end": np.iinfo(np.int32).max if end is None else end}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.array([bound], np.int64), name) for name, bound in bounds.items()
    )
    return [
        helper.make_node("Shape", [node.input[0]], [whole]),
        helper.make_node("Slice", [whole, *bounds], [result]),
    ]


def _drop_newer_attributes(node: onnx.NodeProto, graph: str) -> None:
    newer = _NEWER_ATTRIBUTES.get(node.op_type, {})
    attributes = attributes_of(node)
    for name, old_meaning in newer.items():
        if name in attributes and attributes[name] != old_meaning:
            raise OpsetError(
                f"graph {graph}: {node.op_type} with {name}={attributes[name]} has no form in opset 17"
            )
    if node.op_type == "Split":  # opset 17 splits into as many equal parts as there are outputs
        newer = {"num_outputs": None}
    if (node.op_type == "Pad" and len(node.input) > 3) or (node.op_type == "Resize" and "axes" in attributes):
        raise OpsetError(f"graph {graph}: {node.op_type} with axes has no form in opset 17")
    kept = [attribute for attribute in node.attribute if attribute.name not in newer]
    del node.attribute[:]
    node.attribute.extend(kept)
