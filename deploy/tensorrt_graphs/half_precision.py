"""A float32 graph -> the same graph in half precision, with float32 where half would cost detections.

TensorRT 11 takes the precision of every layer from the ONNX graph ("strongly typed"), so the casts are written here.
Of each node one question is asked: in which of the two does it compute?

    linear layers     half, but for the last one before a float32 output or before sampling offsets, and those that see
                      nothing but boxes (the gates of the location coding)
    Relu, MaxPool     half, but behind boxes
    moving and mixing half where all that they read is half (Reshape, Concat, Add, ...)
    int8's, fp8's     half, where there are any; their scales too
    pairs
    all others        float32: softmax, norms, means, RoIAlign with its coordinates, exp, log, sines, divisions

So sampling offsets, box geometry, descriptors and logits never pass through half precision, which has 11 bits: a
coordinate past cell 64 would move in steps of 1/16 cell.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.graphs import HALF_VALUES, role_of
from deploy.tensorrt_graphs.operators import DEFORM_CONV, DOMAIN, SAMPLED_SUM
from deploy.tensorrt_graphs.rewrite import drop_unused, rename_reads, replace_nodes
from deploy.tensorrt_graphs.types import element_types, infer_types
from lstfe.errors import UserError

LINEAR = frozenset({"Conv", "MatMul", "Gemm", "ConvTranspose"})
_ACTIVATIONS = {"Relu", "MaxPool"}
_NEUTRAL = {
    *("Add", "Sub", "Mul", "Max", "Min", "Neg", "Where"),
    *("Concat", "Split", "Slice", "Gather", "GatherND", "Pad", "Resize"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile", "Identity"),
}
# Inputs that follow the node's precision, by place; of other operators all floats do.
_DATA_PLACES = {"Resize": {0}, SAMPLED_SUM: {0}, DEFORM_CONV: {0, 1}}
_QUANTIZATION = {"QuantizeLinear", "DequantizeLinear"}
_LARGEST_HALF = float(np.finfo(np.float16).max)


class HalfPrecisionError(UserError):
    """A graph holds numbers that half precision cannot."""


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with half precision where the module's docstring says so.

    Inputs and outputs named in `deploy.graphs.HALF_VALUES` become float16, the others keep their type. Raises
    HalfPrecisionError where a weight is too large for half precision.
    """
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    _Conversion(converted).run()
    drop_unused(converted)
    onnx.checker.check_model(converted)
    return infer_types(converted, strict=True)


def last_before_float(model: onnx.ModelProto, operators: Collection[str] = ()) -> set[str]:
    """Return the outputs of the linear layers that are the last before something that stays float32.

    That is: only moving and mixing lies between them and a float32 output, the plugin's offsets, or one of `operators`.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    wanted = [value.name for value in model.graph.output if value.name not in HALF_VALUES]
    for node in model.graph.node:
        if node.domain == DOMAIN:
            follow = _DATA_PLACES.get(node.op_type, set())
            wanted += [name for place, name in enumerate(node.input) if place not in follow]
        elif node.op_type in operators:
            wanted += node.input
    found: set[str] = set()
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        producer = producers.get(name)
        if producer is None or name in seen:
            continue
        seen.add(name)
        if producer.op_type in LINEAR:
            found.add(name)
        elif producer.op_type in _NEUTRAL:
            wanted += producer.input
    return found


class _Conversion:
    """One graph on its way; what is known of its values by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.types = element_types(model)
        self.constants = {value.name: value for value in self.graph.initializer}
        self.half: set[str] = set()  # values that are in half precision by now
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        geometry, kept_float = self._geometry(), last_before_float(self.model)
        for value in self.graph.input:
            if self._is_float(value.name) and role_of(value.name) in HALF_VALUES:
                value.type.tensor_type.elem_type = TensorProto.FLOAT16
                self.half.add(value.name)
        made: set[tuple[str, int]] = set()
        for node in self.graph.node:
            in_half = self._computes_in_half(node, geometry, kept_float)
            for place, name in enumerate(node.input):
                if self._is_float(name):
                    follows = place in _DATA_PLACES.get(node.op_type, {place})
                    node.input[place] = self._as(name, in_half if follows else False, made)
            self.nodes.append(node)
            if in_half:
                self.half |= {name for name in node.output if self._is_float(name)}
        self._give_outputs()
        del self.graph.value_info[:]
        replace_nodes(self.model, self.nodes)

    def _computes_in_half(self, node: onnx.NodeProto, geometry: set[str], kept_float: set[str]) -> bool:
        read = [name for name in node.input if self._is_float(name) and name not in self.constants]
        if node.domain == DOMAIN:
            return node.op_type in (SAMPLED_SUM, DEFORM_CONV)
        if node.op_type in _QUANTIZATION:
            return node.op_type == "DequantizeLinear" or set(read) <= self.half
        if node.op_type in LINEAR | _ACTIVATIONS:
            return node.output[0] not in kept_float and not set(read) <= geometry
        return node.op_type in _NEUTRAL and bool(read) and set(read) <= self.half

    def _geometry(self) -> set[str]:
        """Return the values that depend on nothing but boxes and constants."""
        known = {value.name for value in self.graph.input if role_of(value.name) == "boxes"}
        for node in self.graph.node:
            read = {name for name in node.input if name and name not in self.constants}
            if read and read <= known:
                known |= set(node.output)
        return known

    def _as(self, name: str, in_half: bool, made: set[tuple[str, int]]) -> str:
        """Return the name of a value in the wanted precision, with a Cast or a second constant where it is new."""
        if in_half == (name in self.half):
            return name
        to = TensorProto.FLOAT16 if in_half else TensorProto.FLOAT
        target = f"{name}_{'half' if in_half else 'float'}"
        if (name, to) not in made:
            made.add((name, to))
            if name in self.constants:
                self.graph.initializer.append(self._half_constant(name, target))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [target], to=to))
        return target

    def _half_constant(self, name: str, target: str) -> onnx.TensorProto:
        values = numpy_helper.to_array(self.constants[name])
        finite = np.abs(values[np.isfinite(values)])
        if finite.size and finite.max() > _LARGEST_HALF:
            raise HalfPrecisionError(
                f"graph {self.graph.name}: {name} has a value of {finite.max():.3g}, half precision holds "
                f"{_LARGEST_HALF:.0f} at most; use fp32"
            )
        half = values.astype(np.float16)
        if self._scales_something(name):  # of a dead channel; zero would divide by it
            half = np.maximum(half, np.finfo(np.float16).smallest_subnormal)
        return numpy_helper.from_array(half, target)

    def _scales_something(self, name: str) -> bool:
        return any(node.op_type in _QUANTIZATION and name in node.input[1:2] for node in self.graph.node)

    def _give_outputs(self) -> None:
        """Give the outputs the types that `HALF_VALUES` says, under the names of the contract."""
        for value in self.graph.output:
            if not self._is_float(value.name):
                continue
            in_half = value.name in HALF_VALUES
            value.type.tensor_type.elem_type = TensorProto.FLOAT16 if in_half else TensorProto.FLOAT
            if in_half == (value.name in self.half):
                continue
            other = f"{value.name}_{'float' if in_half else 'half'}"
            for node in self.nodes:
                for place, name in enumerate(node.output):
                    if name == value.name:
                        node.output[place] = other
            rename_reads(self.nodes, value.name, other)
            # A cast that was made before for another reader has the same input and stays.
            to = TensorProto.FLOAT16 if in_half else TensorProto.FLOAT
            self.nodes.append(helper.make_node("Cast", [other], [value.name], to=to))

    def _is_float(self, name: str) -> bool:
        return self.types.get(name) == TensorProto.FLOAT


def share_of_half(model: onnx.ModelProto) -> float:
    """Return the share of a graph's linear layers that compute in half precision."""
    types = element_types(model)
    nodes = [node for node in model.graph.node if node.op_type in LINEAR]
    in_half = [node for node in nodes if types.get(node.output[0]) == TensorProto.FLOAT16]
    return len(in_half) / len(nodes) if nodes else 0.0
