"""The plugin's operators as ONNX nodes (deploy/plugin/README.md): how they get into a graph, and what they stand for.

`expand_operators` is the way back: every such node becomes standard ONNX of the same meaning, so that graphs made for
TensorRT run in ONNX Runtime, where their results are checked.

Shapes: N pairs of frames, C channels, K kernel size, H x W cells of the maps, h x w cells of the output, A anchors a
cell, K proposals, J classes of M boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript.values import Op, Opset
from torch import Tensor

from deploy.tensorrt_graphs.rewrite import drop_unused, readers
from deploy.tensorrt_graphs.standard_proposals import standard_proposals
from deploy.tensorrt_graphs.types import element_types
from lstfe.model.alignment import sampled_sum as sum_of_samples

DOMAIN = "lstfe"
DEFORM_CONV = "LstfeDeformConv2d"
SAMPLED_SUM = "LstfeSampledSum"
PROPOSALS = "LstfeProposals"
SUPPRESSION = "LstfeSuppression"
PLUGIN = {"plugin_namespace": DOMAIN, "plugin_version": "1"}
"""What TensorRT's parser finds a plugin by, beside the operator's name."""

_EXPANDED_OPSET = 20
_INTEGERS = ("kernel_shape", "strides", "pads", "dilations")
_SCHEMA = onnx.defs.OpSchema(
    SAMPLED_SUM,
    DOMAIN,
    1,
    inputs=[
        onnx.defs.OpSchema.FormalParameter("maps", "T"),
        onnx.defs.OpSchema.FormalParameter("offsets", "tensor(float)"),
        onnx.defs.OpSchema.FormalParameter("bias", "tensor(float)"),
    ],
    outputs=[onnx.defs.OpSchema.FormalParameter("sum", "T")],
    type_constraints=[("T", ["tensor(float)", "tensor(float16)"], "")],
    attributes=[
        *(onnx.defs.OpSchema.Attribute(name, onnx.defs.OpSchema.AttrType.INTS) for name in _INTEGERS),
        onnx.defs.OpSchema.Attribute("has_bias", onnx.defs.OpSchema.AttrType.INT),
        *(onnx.defs.OpSchema.Attribute(name, onnx.defs.OpSchema.AttrType.STRING) for name in PLUGIN),
    ],
)
# The exporter's recorder asks for a schema; it has no use for one that the whole process would know.
_record_sampled_sum: Any = Op(Opset(DOMAIN, 1), SAMPLED_SUM, _SCHEMA)


@torch.library.custom_op("lstfe::sampled_sum", mutates_args=())
def sampled_sum(maps: Tensor, sampling_offsets: Tensor, bias: Tensor, kernel_size: int) -> Tensor:
    """Sum bilinear samples of the tap maps: (N, H, W, K*K*C), (N, 2*K*K, h, w), (C,) -> (N, C, h, w).

    `lstfe.model.alignment.sampled_sum` with a bias, and maps as one matrix product makes them: a row a cell, tap-major.
    """
    number, height, width, _ = maps.shape
    taps = maps.reshape(number, height * width, kernel_size**2, -1).transpose(1, 2)
    summed = sum_of_samples(taps, sampling_offsets, (height, width), kernel_size)
    return (summed + bias[:, None, None]).contiguous()


@sampled_sum.register_fake
def _(maps: Tensor, sampling_offsets: Tensor, bias: Tensor, kernel_size: int) -> Tensor:
    return maps.new_empty((maps.shape[0], len(bias), *sampling_offsets.shape[2:]))


def sampled_sum_in_onnx(maps: Any, sampling_offsets: Any, bias: Any, kernel_size: int) -> Any:
    """`sampled_sum` as one node of the plugin."""
    return _record_sampled_sum(
        *(maps, sampling_offsets, bias),
        kernel_shape=[kernel_size] * 2,
        strides=[1, 1],
        pads=[kernel_size // 2] * 4,
        dilations=[1, 1],
        has_bias=1,
        **PLUGIN,
    )


def use_deform_conv_plugin(model: onnx.ModelProto) -> None:
    """Turn every standard DeformConv into the plugin's operator, in place.

    Inputs are those of ONNX but for the order of the optional ones, which the plugin has one after the other.
    """
    for node in model.graph.node:
        if node.op_type != "DeformConv" or node.domain:
            continue
        features, weight, offsets, bias, mask = (*node.input, "", "")[:5]
        node.op_type, node.domain = DEFORM_CONV, DOMAIN
        del node.input[:]
        node.input.extend([features, weight, offsets, *filter(None, (bias, mask))])
        flags = {"has_bias": int(bool(bias)), "has_mask": int(bool(mask))}
        node.attribute.extend(helper.make_attribute(name, value) for name, value in (flags | PLUGIN).items())
    declare_domain(model)


def use_suppression_plugin(model: onnx.ModelProto) -> None:
    """Turn what `deploy.suppression.suppress_in_onnx` writes into the plugin's operator, in place.

    Boxes (J, M, 4), scores (J, M) -> marks (J, M), a fixed size: the standard operator gives as many rows as it keeps,
    which a runtime must wait for before it goes on.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {value.name: value for value in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "NonMaxSuppression"]:
        boxes, one_class, *numbers = node.input
        max_kept, nms_iou, score_threshold = (
            numpy_helper.to_array(constants[name]).item() for name in numbers
        )
        places = _only(model, "Gather", node.output[0])
        marked = _only(model, "Cast", _only(model, "ScatterND", places.output[0]).output[0])
        marks = f"{node.output[0]}_marks"
        node.op_type, node.domain = SUPPRESSION, DOMAIN
        del node.input[:], node.attribute[:]
        node.input.extend([boxes, makers[one_class].input[0]])
        node.output[0] = marked.input[0] = marks
        given = {"nms_iou": nms_iou, "score_threshold": score_threshold, "max_kept": max_kept} | PLUGIN
        node.attribute.extend(helper.make_attribute(name, value) for name, value in given.items())
    drop_unused(model)
    declare_domain(model)


def _only(model: onnx.ModelProto, op_type: str, name: str) -> onnx.NodeProto:
    (found,) = (node for node in readers(model, name) if node.op_type == op_type)
    return found


def declare_domain(model: onnx.ModelProto) -> None:
    """State the plugin's domain among a model's opsets, if it uses it and does not yet."""
    uses = any(node.domain == DOMAIN for node in model.graph.node)
    if uses and all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


# ------------------------------------------------------------------------------------------- the way back


def expand_operators(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without the plugin's operators, of the same inputs, outputs and meaning.

    Sums are computed in float32 and rounded once, as the plugin does. A graph of an older opset that holds such
    operators is brought to opset 20 by ONNX's own converter: DeformConv came with opset 19.
    """
    if all(node.domain != DOMAIN for node in model.graph.node):
        return model
    if max(entry.version for entry in model.opset_import if entry.domain != DOMAIN) < _EXPANDED_OPSET:
        model = onnx.version_converter.convert_version(model, _EXPANDED_OPSET)
    expanded = onnx.ModelProto()
    expanded.CopyFrom(model)
    constants = {value.name: value for value in expanded.graph.initializer}
    channels = {name: int(value.dims[0]) for name, value in constants.items() if value.dims}
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []
    types = element_types(model)
    for place, node in enumerate(expanded.graph.node):
        if node.domain != DOMAIN:
            nodes.append(node)
            continue
        prefix = f"expanded_{place}_"
        if node.op_type == SAMPLED_SUM:
            made = _expand_sampled_sum(node, prefix, channels[node.input[2]], types)
        elif node.op_type == DEFORM_CONV:
            made = _expand_deform_conv(node, prefix, types)
        elif node.op_type == PROPOSALS:
            anchors = numpy_helper.to_array(constants[node.input[2]])
            made = _expand_proposals(node, prefix, anchors)
        else:
            made = _expand_suppression(node, prefix)
        nodes += made[0]
        initializers += made[1]
    del expanded.graph.node[:]
    expanded.graph.node.extend(nodes)
    expanded.graph.initializer.extend(initializers)
    for entry in [entry for entry in expanded.opset_import if entry.domain == DOMAIN]:
        expanded.opset_import.remove(entry)
    return expanded


_Made = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def _expand_sampled_sum(node: onnx.NodeProto, prefix: str, channels: int, types: Mapping[str, int]) -> _Made:
    """One tap of a K x K kernel is a 1x1 deformable convolution at a place of its own: K*K offset groups."""
    kernel_size = attributes_of(node)["kernel_shape"][0]
    taps = kernel_size**2
    steps = np.arange(kernel_size, dtype=np.float32) - kernel_size // 2
    displacement = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1)  # (K, K, 2), (dy, dx)
    identity = np.tile(np.eye(channels, dtype=np.float32), (1, taps))[:, :, None, None]  # (C, K*K*C, 1, 1)
    nodes = [
        helper.make_node("Add", [node.input[1], f"{prefix}displacement"], [f"{prefix}offsets"]),
        _cast(node.input[0], f"{prefix}rows", TensorProto.FLOAT),
        helper.make_node("Transpose", [f"{prefix}rows"], [f"{prefix}maps"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "DeformConv",
            [f"{prefix}maps", f"{prefix}identity", f"{prefix}offsets", node.input[2]],
            [f"{prefix}sum"],
            kernel_shape=[1, 1],
            offset_group=taps,
        ),
        _cast(f"{prefix}sum", node.output[0], types[node.input[0]]),
    ]
    return nodes, [
        numpy_helper.from_array(displacement.reshape(1, 2 * taps, 1, 1), f"{prefix}displacement"),
        numpy_helper.from_array(identity, f"{prefix}identity"),
    ]


def _expand_deform_conv(node: onnx.NodeProto, prefix: str, types: Mapping[str, int]) -> _Made:
    attributes = attributes_of(node)
    optional = list(node.input[3:])
    bias = optional.pop(0) if attributes.get("has_bias") else ""
    mask = optional.pop(0) if attributes.get("has_mask") else ""
    known = ("strides", "pads", "dilations", "group", "offset_group", "kernel_shape")
    nodes = [
        _cast(node.input[0], f"{prefix}features", TensorProto.FLOAT),
        _cast(node.input[1], f"{prefix}weight", TensorProto.FLOAT),
        helper.make_node(
            "DeformConv",
            [f"{prefix}features", f"{prefix}weight", node.input[2], bias, mask],
            [f"{prefix}sum"],
            **{name: value for name, value in attributes.items() if name in known},
        ),
    ]
    last = f"{prefix}sum"
    if attributes.get("relu"):
        nodes.append(helper.make_node("Relu", [last], [f"{prefix}relu"]))
        last = f"{prefix}relu"
    return [*nodes, _cast(last, node.output[0], types[node.input[0]])], []


def _expand_proposals(node: onnx.NodeProto, prefix: str, anchors: npt.NDArray[np.float32]) -> _Made:
    """Splice the standard graph of the same numbers in, its names made unique."""
    attributes = attributes_of(node)
    body = standard_proposals(
        anchors,
        stride=attributes["stride"],
        pre_nms_top_k=attributes["pre_nms_top_k"],
        post_nms_top_k=attributes["post_nms_top_k"],
        nms_iou=attributes["nms_iou"],
        min_size_px=attributes["min_size_px"],
    ).graph
    objectness, box_deltas, _, image_size = node.input
    outside: dict[str, str] = {
        "objectness": objectness,
        "box_deltas": box_deltas,
        "image_size": f"{prefix}size",
        body.output[0].name: node.output[0],
        body.output[1].name: f"{prefix}valid",
        "": "",
    }

    def renamed(name: str) -> str:
        return outside.get(name, prefix + name)

    nodes = [_cast(image_size, f"{prefix}size", TensorProto.INT64)]
    for inner in body.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(inner)
        _rename(copy, renamed)
        nodes.append(copy)
    for value in body.initializer:
        value.name = renamed(value.name)
    return [*nodes, _cast(f"{prefix}valid", node.output[1], TensorProto.INT32)], list(body.initializer)


def _expand_suppression(node: onnx.NodeProto, prefix: str) -> _Made:
    """Let each class be one batch entry of NonMaxSuppression, and mark what it selects."""
    attributes = attributes_of(node)
    boxes, scores = node.input
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Unsqueeze", [scores, "axis_1"], "one_class", {}),
        ("NonMaxSuppression", [boxes, "one_class", "max_kept", "nms_iou", "score_threshold"], "selected", {}),
        ("Gather", ["selected", "class_and_box"], "places", {"axis": 1}),
        ("Shape", ["selected"], "number", {"end": 1}),
        ("Expand", ["one", "number"], "ones", {}),
        ("Shape", [scores], "shape", {}),
        ("Expand", ["zero", "shape"], "zeros", {}),
        ("ScatterND", ["zeros", "places", "ones"], "marks", {}),
    ]
    numbers: dict[str, npt.NDArray[np.generic]] = {
        "axis_1": np.array([1]),
        "max_kept": np.array([attributes["max_kept"]]),
        "nms_iou": np.array([attributes["nms_iou"]], np.float32),
        "score_threshold": np.array([attributes["score_threshold"]], np.float32),
        "class_and_box": np.array([0, 2]),
        "one": np.array(1),
        "zero": np.array(0),
    }
    nodes = [
        helper.make_node(
            kind,
            [name if name in node.input else prefix + name for name in inputs],
            [prefix + output],
            **given,
        )
        for kind, inputs, output, given in steps
    ]
    nodes.append(_cast(f"{prefix}marks", node.output[0], TensorProto.INT32))
    return nodes, [numpy_helper.from_array(value, prefix + name) for name, value in numbers.items()]


def _rename(node: onnx.NodeProto, renamed: Callable[[str], str]) -> None:
    inputs, outputs = [renamed(name) for name in node.input], [renamed(name) for name in node.output]
    node.name = renamed(node.name) if node.name else ""
    del node.input[:], node.output[:]
    node.input.extend(inputs)
    node.output.extend(outputs)


def _cast(source: str, target: str, element_type: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], to=element_type)
