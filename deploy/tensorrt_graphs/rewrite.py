"""From the standard export to what TensorRT's parsers take: passes over one ONNX graph that keep its meaning.

None of them changes the names of inputs and outputs, which are the contract of `deploy.graphs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deploy.device import Array


def fold_constants(model: onnx.ModelProto) -> None:
    """Compute, in place, all nodes whose inputs are constants.

    TensorRT wants the weights of a convolution as constants, and the exporter leaves the arithmetic that folds the
    pixel aggregation's four parts in the graph.
    """
    constants = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    folded: list[onnx.NodeProto] = []
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        inputs = {name: constants[name] for name in node.input if name in constants}
        is_constant = len(inputs) == len({name for name in node.input if name})
        if not is_constant or node.domain or outputs & set(node.output):
            continue
        results = ReferenceEvaluator(_single_node_model(node, inputs, model.opset_import)).run(None, inputs)
        values = {name: np.asarray(value) for name, value in zip(node.output, results, strict=True)}
        constants |= values
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
        folded.append(node)
    for node in folded:
        model.graph.node.remove(node)
    drop_unused(model)


def fold_scales(model: onnx.ModelProto) -> None:
    """Let convolutions take up, in place, constant factors and summands per channel that follow them.

    A frozen batch norm is exported as such a pair. Folded, its weights are rounded once in half precision, and int8
    takes its ranges from what the convolution really multiplies.
    """
    constants = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    outputs = {value.name for value in model.graph.output}
    for convolution in [node for node in model.graph.node if node.op_type == "Conv"]:
        if not set(filter(None, convolution.input[1:])) <= set(constants):
            continue
        while (follower := _only_reader(model, convolution.output[0], outputs)) is not None:
            factor = _per_channel(
                follower, convolution.output[0], constants, len(constants[convolution.input[1]])
            )
            if factor is None:
                break
            _take_up(model, convolution, follower, factor, constants)
    drop_unused(model)


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove, in place, constants and nodes that nothing reads."""
    outputs = {value.name for value in model.graph.output}
    while True:
        read = outputs | {name for node in model.graph.node for name in node.input}
        unused = [place for place, node in enumerate(model.graph.node) if not read & set(node.output)]
        for place in reversed(unused):
            del model.graph.node[place]
        if not unused:
            break
    # By place: comparing weights to find the one to remove would read them all.
    for place in reversed(range(len(model.graph.initializer))):
        if model.graph.initializer[place].name not in read:
            del model.graph.initializer[place]


def use_int32_borders(model: onnx.ModelProto) -> None:
    """Give the graph int32 inputs and outputs in place of int64 ones, in place.

    TensorRT before 9 has no int64, and 9 and newer would want other bindings for the same graph. Inside, ONNX's
    operators want int64; the parsers before 9 read it as int32.
    """
    casts_in: list[onnx.NodeProto] = []
    for value in model.graph.input:
        if value.type.tensor_type.elem_type == TensorProto.INT64:
            value.type.tensor_type.elem_type = TensorProto.INT32
            wide = f"{value.name}_int64"
            rename_reads(model.graph.node, value.name, wide)
            casts_in.append(helper.make_node("Cast", [value.name], [wide], to=TensorProto.INT64))
    nodes = [*casts_in, *model.graph.node]
    for value in model.graph.output:
        if value.type.tensor_type.elem_type == TensorProto.INT64:
            value.type.tensor_type.elem_type = TensorProto.INT32
            wide = f"{value.name}_int64"
            rename_reads(model.graph.node, value.name, wide)
            rename_writes(model.graph.node, value.name, wide)
            nodes.append(helper.make_node("Cast", [wide], [value.name], to=TensorProto.INT32))
    replace_nodes(model, nodes)


def replace_nodes(model: onnx.ModelProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Set the nodes of a model, in order; they may be nodes that it has already."""
    copies = [_copy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def rename_reads(nodes: Iterable[onnx.NodeProto], name: str, new_name: str) -> None:
    """Let nodes that read a value read another one."""
    for node in nodes:
        for place, read in enumerate(node.input):
            if read == name:
                node.input[place] = new_name


def rename_writes(nodes: Iterable[onnx.NodeProto], name: str, new_name: str) -> None:
    """Let the node that makes a value give it another name."""
    for node in nodes:
        for place, written in enumerate(node.output):
            if written == name:
                node.output[place] = new_name


def readers(model: onnx.ModelProto, name: str) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that read a value."""
    return (node for node in model.graph.node if name in node.input)


def _only_reader(model: onnx.ModelProto, name: str, outputs: set[str]) -> onnx.NodeProto | None:
    found = list(readers(model, name))
    return found[0] if len(found) == 1 and name not in outputs else None


def _per_channel(node: onnx.NodeProto, data: str, constants: dict[str, Array], channels: int) -> Array | None:
    """Return the (channels,) that a Mul or Add applies to (1, channels, h, w) data, None if it does something else."""
    if node.op_type not in ("Mul", "Add"):
        return None
    other = constants.get(next((name for name in node.input if name != data), ""))
    if other is None or other.size not in (1, channels):
        return None
    is_per_channel = other.size == 1 or (other.ndim >= 3 and other.shape[-3:] == (channels, 1, 1))
    return np.broadcast_to(other.reshape(-1), (channels,)) if is_per_channel else None


def _take_up(
    model: onnx.ModelProto,
    convolution: onnx.NodeProto,
    follower: onnx.NodeProto,
    values: Array,
    constants: dict[str, Array],
) -> None:
    weight = constants[convolution.input[1]].astype(np.float64)
    has_bias = len(convolution.input) > 2
    bias = constants[convolution.input[2]].astype(np.float64) if has_bias else np.zeros(len(weight))
    if follower.op_type == "Mul":
        weight, bias = weight * values.reshape(-1, *[1] * (weight.ndim - 1)), bias * values
    else:
        bias = bias + values
    result = follower.output[0]
    names = [f"{result}_weight", f"{result}_bias"]
    for name, value in zip(names, (weight, bias), strict=True):
        constants[name] = value.astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(constants[name], name))
    del convolution.input[1:]
    convolution.input.extend(names)
    convolution.output[0] = result
    model.graph.node.remove(follower)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _single_node_model(
    node: onnx.NodeProto, inputs: dict[str, Array], opsets: Iterable[onnx.OperatorSetIdProto]
) -> onnx.ModelProto:
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in node.output]
    return helper.make_model(
        helper.make_graph([node], "folded", declared, results), opset_imports=list(opsets)
    )
