"""Networks, parsers and builders."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import onnx

from tensorrt import names


@dataclass
class _Value:
    """A tensor between layers; before 10 TensorRT does not say that one is half."""

    name: str
    dtype: names.DataType | None


class _Layer:
    """A layer, as the parser makes one of each node."""

    def __init__(self, node: onnx.NodeProto, types: dict[str, int]) -> None:
        self.type = {
            "Conv": names.LayerType.CONVOLUTION,
            "Shape": names.LayerType.SHAPE,
            "QuantizeLinear": names.LayerType.QUANTIZE,
            "DequantizeLinear": names.LayerType.DEQUANTIZE,
        }.get(node.op_type, names.LayerType.OTHER)
        self.precision: names.DataType | None = None
        self.output_types: dict[int, names.DataType] = {}
        self._inputs = [self._value(name, types) if name else None for name in node.input]
        self._outputs = [self._value(name, types) for name in node.output]

    def _value(self, name: str, types: dict[str, int]) -> _Value:
        found = names.FROM_ONNX.get(types.get(name, 0))
        return _Value(name, names.float32 if found == names.float16 and names.MAJOR < 10 else found)

    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))

    def get_input(self, index: int) -> _Value | None:
        return self._inputs[index]

    def get_output(self, index: int) -> _Value:
        return self._outputs[index]

    def set_output_type(self, index: int, dtype: names.DataType) -> None:
        self.output_types[index] = dtype

    def fault(self, types: dict[str, int]) -> str | None:
        """What a builder that may use half would do to this layer."""
        given = {types.get(value.name) for value in self._inputs if value is not None}
        made = [types.get(value.name) for value in self._outputs]
        half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
        computes_in_single = single in made or (single in given and half not in given)
        if self.type == names.LayerType.SHAPE or half in made or not computes_in_single:
            return None if self.precision is None else "held to float32, though the graph has it in half"
        held = {place for place, found in self.output_types.items() if found == names.float32}
        if self.precision != names.float32 or held != {i for i, found in enumerate(made) if found == single}:
            return "may run in half, though the graph has it in float32"
        return None


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model: onnx.ModelProto | None = None
        self.inputs: list[names.Tensor] = []
        self.layers: list[_Layer] = []
        self.types: dict[str, int] = {}

    def read(self, model: onnx.ModelProto) -> None:
        from deploy.tensorrt_graphs.types import element_types

        self.model = model
        self.inputs = [names.Tensor(value) for value in model.graph.input]
        self.types = element_types(model)
        self.layers = [_Layer(node, self.types) for node in model.graph.node]

    def precision_fault(self, flags: set[Any]) -> str | None:
        """What TensorRT before 10 would not build, or would build otherwise than the graph says."""
        is_quantized = any(layer.type == names.LayerType.QUANTIZE for layer in self.layers)
        if (names.BuilderFlag.INT8 in flags) != is_quantized:
            return "Calibration failure occurred with no scaling factors detected."
        if names.BuilderFlag.FP16 not in flags:
            return "a layer in half without the flag FP16" if self.has_half else None
        faults = ((layer, layer.fault(self.types)) for layer in self.layers)
        return next((f"{layer.get_output(0).name}: {fault}" for layer, fault in faults if fault), None)

    @property
    def has_half(self) -> bool:
        return onnx.TensorProto.FLOAT16 in self.types.values()

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_input(self, index: int) -> names.Tensor:
        return self.inputs[index]

    def get_layer(self, index: int) -> _Layer:
        return self.layers[index]


class OnnxParser:
    def __init__(self, network: _Network, logger: names.ILogger) -> None:
        self._network = network
        self._faults: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self._faults)

    def get_error(self, index: int) -> str:
        return self._faults[index]

    def parse(self, model: bytes, path: str | None = None) -> bool:
        proto = onnx.load_from_string(model)
        if unknown := names.unknown_operator(proto):
            self._faults.append(f"No importer registered for op: {unknown}")
            return False
        self._network.read(proto)
        return True


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))


class _TimingCache:
    def __init__(self, serialized: bytes) -> None:
        self._bytes = serialized

    def serialize(self) -> memoryview:
        return memoryview(self._bytes or b"cache")


class _BuilderConfig:
    def __init__(self) -> None:
        self.profiles: list[_Profile] = []
        self.flags: set[Any] = {names.BuilderFlag.TF32}
        self.tactic_sources = 0b11111
        self.preview_features: set[Any] = set()

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    if names.MAJOR < 10:

        def set_preview_feature(self, feature: Any, enable: bool) -> None:
            self.preview_features |= {feature} if enable else set()

        def get_tactic_sources(self) -> int:
            return self.tactic_sources

        def set_tactic_sources(self, tactic_sources: int) -> bool:
            self.tactic_sources = tactic_sources
            return True

        @property
        def wants_cublas(self) -> bool:
            sources = (names.TacticSource.CUBLAS, names.TacticSource.CUBLAS_LT, names.TacticSource.CUDNN)
            without = (
                names.PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805 in self.preview_features
            )
            return not without or any(self.tactic_sources >> source & 1 for source in sources)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> _TimingCache:
        return _TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        return True


class Builder:
    def __init__(self, logger: names.ILogger) -> None:
        names.require_driver(logger)
        self._logger = logger

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> _BuilderConfig:
        return _BuilderConfig()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _BuilderConfig) -> memoryview | None:
        shapes: dict[str, Any] = {}
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            bounds = config.profiles[0].shapes.get(tensor.name) if config.profiles else None
            if -1 in tensor.shape and bounds is None:
                names.complain(self._logger, f"{tensor.name}: dynamic shape without a profile")
                return None
            bounds = bounds or (tensor.shape,) * 3
            for least, tuned, most in zip(*bounds, strict=True):
                if not least <= tuned <= most:
                    names.complain(self._logger, f"{tensor.name}: profile {bounds} is not ascending")
                    return None
            shapes[tensor.name] = bounds
            sizes = network.model.graph.input[index].type.tensor_type.shape.dim
            for size, fixed in zip(sizes, tensor.shape, strict=True):
                if fixed >= 0:
                    size.dim_value = fixed
        if names.MAJOR < 10 and config.wants_cublas:
            names.complain(self._logger, "Unable to load library: libcublas.so.11")
            return None
        if names.MAJOR < 10 and (fault := network.precision_fault(config.flags)):
            names.complain(self._logger, fault)
            return None
        shares_profiles = names.MAJOR >= 10 or (
            names.VERSION >= (8, 6) and names.PreviewFeature.PROFILE_SHARING_0806 in config.preview_features
        )
        from deploy.tensorrt_graphs.operators import expand_operators

        operators = sorted({node.op_type for node in network.model.graph.node if node.domain == "lstfe"})
        header = json.dumps(
            {
                "version": names.__version__,
                "profiles": shapes,
                "operators": operators,
                "shares_profiles": shares_profiles,
                "waits": any(
                    node.op_type in ("NonMaxSuppression", "NonZero") for node in network.model.graph.node
                ),
            }
        ).encode()
        model = expand_operators(network.model).SerializeToString()
        body = len(header).to_bytes(4, "little") + header + model
        return memoryview(names.MAGIC + hashlib.sha256(body).digest() + body)
