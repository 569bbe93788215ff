"""The precision of an engine: which kernels there are, and how TensorRT before 10 is held to its graph.

From 10 on networks are strongly typed: types come from the graph, and nothing is to be done. Before, flags of the
builder allow a precision and the builder chooses by speed. So a precision is allowed only where the graph has it, and
what the graph has in float32 is held there, layer by layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from deploy.graphs import Precision
from deploy.tensorrt.cuda import Gpu
from deploy.tensorrt.manifest import EngineError

if TYPE_CHECKING:
    from onnx import ModelProto

_FP8_TENSORRT, _FP8_COMPUTE_CAPABILITY = (10, 2), (8, 9)


def require_kernels(precision: Precision, tensorrt_version: str, gpu: Gpu) -> None:
    """Raise EngineError where this TensorRT or this GPU has no convolutions of the precision."""
    if precision != "fp8":
        return
    if tuple(map(int, tensorrt_version.split(".")[:2])) < _FP8_TENSORRT:
        needed = "TensorRT {}.{}".format(*_FP8_TENSORRT)
        raise EngineError(
            f"TensorRT {tensorrt_version} has no fp8 convolutions, expected {needed} or newer; use int8"
        )
    if tuple(map(int, gpu.compute_capability.split("."))) < _FP8_COMPUTE_CAPABILITY:
        needed = "{}.{}".format(*_FP8_COMPUTE_CAPABILITY)
        raise EngineError(
            f"{gpu.name} has compute capability {gpu.compute_capability}, fp8 wants {needed} or newer; use int8"
        )


def set_precision(trt: Any, config: Any, network: Any, model: ModelProto) -> None:
    """Allow, in TensorRT before 10, a network parsed from a graph what the graph has; `trt` is TensorRT's module."""
    from onnx import TensorProto

    from deploy.tensorrt_graphs.types import element_types

    types: dict[str, int] = element_types(model)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        config.set_flag(
            trt.BuilderFlag.INT8
        )  # without such nodes the builder would ask for ranges of everything
    if TensorProto.FLOAT16 in types.values():
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        floats: dict[int, Any] = {TensorProto.FLOAT: trt.float32, TensorProto.FLOAT16: trt.float16}
        _hold_to_float32(trt, network, {name: floats.get(number) for name, number in types.items()})


def _hold_to_float32(trt: Any, network: Any, types: Mapping[str, Any]) -> None:
    """Hold all layers to float32 that compute in it: comparisons, TopK and suppression too, whose results are none.

    `types` are the graph's values with their float type in TensorRT, None for what is neither float32 nor half.
    """

    def type_of(tensor: Any) -> Any:
        # Tensors within what the parser makes of a node are in no graph.
        return types.get(tensor.name, tensor.dtype)

    for layer in (network.get_layer(place) for place in range(network.num_layers)):
        if layer.type in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE):
            continue
        results = {place: type_of(tensor) for place, tensor in _tensors(layer.get_output, layer.num_outputs)}
        given = [type_of(tensor) for _, tensor in _tensors(layer.get_input, layer.num_inputs)]
        has_single = trt.float32 in results.values()
        if trt.float16 in results.values() or (not has_single and trt.float16 in given):
            continue
        if has_single or trt.float32 in given:
            layer.precision = trt.float32
        for place in [place for place, found in results.items() if found == trt.float32]:
            layer.set_output_type(place, trt.float32)


def _tensors(get: Any, number: int) -> Iterator[tuple[int, Any]]:
    """Yield the tensors of a layer with their places; optional inputs that are left out have none."""
    found = ((place, get(place)) for place in range(number))
    return ((place, tensor) for place, tensor in found if tensor is not None)
