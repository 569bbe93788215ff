"""Element types and shapes of all values of an ONNX model, also behind the plugin's operators.

ONNX's own inference stops at operators that it does not know. All of them here give what their first input is made of
(the proposals: boxes and marks), which is all that is needed to go on.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto, helper

from lstfe.errors import UserError, one_line


class GraphTypeError(UserError):
    """A graph is not typed as ONNX and strongly typed TensorRT networks ask."""


def infer_types(model: onnx.ModelProto, *, strict: bool = False) -> onnx.ModelProto:
    """Return a copy of a model with the types, and where they are known the shapes, of its values.

    `strict` raises GraphTypeError where the inputs of a node do not go together.
    """
    typed = model
    while True:
        try:
            typed = onnx.shape_inference.infer_shapes(
                typed, check_type=strict, strict_mode=strict, data_prop=True
            )
        except onnx.shape_inference.InferenceError as error:
            reason = one_line(error)
            raise GraphTypeError(f"graph {model.graph.name}: types do not go together: {reason}") from None
        known = _known_types(typed)
        missing = [
            helper.make_tensor_value_info(name, element_type, None)
            for node in typed.graph.node
            for name, element_type in _unknown_outputs(node, known)
        ]
        if not missing:
            return typed
        typed.graph.value_info.extend(missing)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Return the element type (onnx.TensorProto.DataType) of every value and constant."""
    return _known_types(infer_types(model))


def _unknown_outputs(node: onnx.NodeProto, known: dict[str, int]) -> Iterable[tuple[str, int]]:
    if node.domain in ("", "ai.onnx") or node.input[0] not in known:
        return []
    types = [TensorProto.FLOAT, TensorProto.INT32] if len(node.output) == 2 else [known[node.input[0]]]
    return [pair for pair in zip(node.output, types, strict=True) if pair[0] not in known]


def _known_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {value.name: value.data_type for value in graph.initializer}
    return {name: element_type for name, element_type in types.items() if element_type}
