"""From the standard export to what TensorRT's parsers take: passes over one ONNX graph that keep its meaning.

None of them changes the names of inputs and outputs, which are the contract of `deploy.graphs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


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


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove, in place, constants and nodes that nothing reads."""
    outputs = {value.name for value in model.graph.output}
    while True:
        read = outputs | {name for node in model.graph.node for name in node.input}
        unused = [node for node in model.graph.node if not read & set(node.output)]
        for node in unused:
            model.graph.node.remove(node)
        if not unused:
            break
    for value in [value for value in model.graph.initializer if value.name not in read]:
        model.graph.initializer.remove(value)


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


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _single_node_model(
    node: onnx.NodeProto, inputs: dict[str, np.ndarray], opsets: Iterable[onnx.OperatorSetIdProto]
) -> onnx.ModelProto:
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
    ]
    results = [helper.make_empty_tensor_value_info(name) for name in node.output]
    return helper.make_model(
        helper.make_graph([node], "folded", declared, results), opset_imports=list(opsets)
    )
