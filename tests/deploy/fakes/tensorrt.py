"""TensorRT's Python package without TensorRT: engines are ONNX models that ONNX Runtime runs.

Names and arguments are those of TensorRT's own bindings (python/src/infer/pyCore.cpp of 8.5.3, 10.13 and 11.1); what
a version does not have, this one does not have either. Set `LSTFE_FAKE_TENSORRT` to choose the version.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pycuda.driver as cuda

__version__ = os.environ.get("LSTFE_FAKE_TENSORRT", "10.13.2.6")
_VERSION = tuple(int(part) for part in __version__.split(".")[:2])
_MAJOR = _VERSION[0]
_MAGIC = b"plan"


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8


float32 = DataType.FLOAT

_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
    DataType.INT64: np.int64,
}
_FROM_ONNX = {
    onnx.TensorProto.FLOAT: DataType.FLOAT,
    onnx.TensorProto.FLOAT16: DataType.HALF,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.BOOL: DataType.BOOL,
    onnx.TensorProto.UINT8: DataType.UINT8,
}


def nptype(trt_type: DataType) -> Any:
    return _NUMPY[trt_type]


class ILogger:
    class Severity(enum.Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


def _complain(logger: ILogger, message: str) -> None:
    logger.log(ILogger.Severity.ERROR, message)


if _MAJOR >= 11:
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0})
    BuilderFlag = enum.Enum("BuilderFlag", ["TF32", "STRIP_PLAN"])
elif _MAJOR == 10:
    NetworkDefinitionCreationFlag = enum.IntEnum(
        "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    )
    BuilderFlag = enum.Enum("BuilderFlag", ["FP16", "BF16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS"])
else:
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0})
    BuilderFlag = enum.Enum("BuilderFlag", ["FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS"])

if _MAJOR >= 10:

    class ExecutionContextAllocationStrategy(enum.Enum):
        STATIC = 0
        ON_PROFILE_CHANGE = 1
        USER_MANAGED = 2


if _MAJOR < 10:
    PreviewFeature = enum.IntEnum(
        "PreviewFeature",
        {"FASTER_DYNAMIC_SHAPES_0805": 0, "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805": 1},
    )
    TacticSource = enum.IntEnum(
        "TacticSource",
        {"CUBLAS": 0, "CUBLAS_LT": 1, "CUDNN": 2, "EDGE_MASK_CONVOLUTIONS": 3, "JIT_CONVOLUTIONS": 4},
    )


class LayerType(enum.Enum):
    CONSTANT = 0
    SHAPE = 1
    CONVOLUTION = 2


# ------------------------------------------------------------------------------------------------------ plugins


class _Registry:
    """Knows the operators of a library that was loaded; a library here is a file with their names."""

    def __init__(self) -> None:
        self.operators: set[str] = set()

        self.has_own_plugins = False

    def add(self, path: str) -> object | None:
        found = {name for name in Path(path).read_text("latin1").split() if name.startswith("Lstfe")}
        self.operators |= found
        return object() if found else None

    def _find(self, type: str, version: str, plugin_namespace: str = "") -> object | None:
        return object() if type in self.operators and (version, plugin_namespace) == ("1", "lstfe") else None

    if _VERSION >= (8, 6):

        def load_library(self, plugin_path: str) -> object | None:
            return self.add(plugin_path)

    if _VERSION >= (10, 0):

        def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> object | None:
            return self._find(type, version, plugin_namespace)

    else:

        def get_plugin_creator(self, type: str, version: str, plugin_namespace: str = "") -> object | None:
            return self._find(type, version, plugin_namespace)


_registry = _Registry()


def get_plugin_registry() -> _Registry:
    return _registry


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    """Register TensorRT's own plugins; its parser does this by itself, deserialising an engine does not."""
    _registry.has_own_plugins = True
    return True


def _unknown_operator(model: onnx.ModelProto) -> str | None:
    names = (node.op_type for node in model.graph.node if node.domain == "lstfe")
    return next((name for name in names if name not in _registry.operators), None)


# ------------------------------------------------------------------------------------------------------ building


class _Tensor:
    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        sizes = value.type.tensor_type.shape.dim
        self.shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)
        self.dtype = _FROM_ONNX[value.type.tensor_type.elem_type]


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model: onnx.ModelProto | None = None
        self.inputs: list[_Tensor] = []

    def read(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.inputs = [_Tensor(value) for value in model.graph.input]

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_layers(self) -> int:
        return 0

    def get_input(self, index: int) -> _Tensor:
        return self.inputs[index]

    def get_layer(self, index: int) -> Any:
        raise IndexError(index)


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self._network = network
        self._faults: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self._faults)

    def get_error(self, index: int) -> str:
        return self._faults[index]

    def parse(self, model: bytes, path: str | None = None) -> bool:
        proto = onnx.load_from_string(model)
        if unknown := _unknown_operator(proto):
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
        self.flags: set[Any] = {BuilderFlag.TF32}
        self.tactic_sources = 0b11111
        self.preview_features: set[Any] = set()

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag)

    if _MAJOR < 10:

        def set_preview_feature(self, feature: Any, enable: bool) -> None:
            self.preview_features |= {feature} if enable else set()

        def get_tactic_sources(self) -> int:
            return self.tactic_sources

        def set_tactic_sources(self, tactic_sources: int) -> bool:
            self.tactic_sources = tactic_sources
            return True

        @property
        def wants_cublas(self) -> bool:
            sources = (TacticSource.CUBLAS, TacticSource.CUBLAS_LT, TacticSource.CUDNN)
            without = PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805 in self.preview_features
            return not without or any(self.tactic_sources >> source & 1 for source in sources)

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> _TimingCache:
        return _TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: _TimingCache, ignore_mismatch: bool) -> bool:
        return True


class Builder:
    def __init__(self, logger: ILogger) -> None:
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
                _complain(self._logger, f"{tensor.name}: dynamic shape without a profile")
                return None
            bounds = bounds or (tensor.shape,) * 3
            for least, tuned, most in zip(*bounds, strict=True):
                if not least <= tuned <= most:
                    _complain(self._logger, f"{tensor.name}: profile {bounds} is not ascending")
                    return None
            shapes[tensor.name] = bounds
            sizes = network.model.graph.input[index].type.tensor_type.shape.dim
            for size, fixed in zip(sizes, tensor.shape, strict=True):
                if fixed >= 0:
                    size.dim_value = fixed
        if _MAJOR < 10 and config.wants_cublas:
            _complain(self._logger, "Unable to load library: libcublas.so.11")
            return None
        from deploy.operators import expand_operators

        operators = sorted({node.op_type for node in network.model.graph.node if node.domain == "lstfe"})
        header = json.dumps({"version": __version__, "profiles": shapes, "operators": operators}).encode()
        model = expand_operators(network.model).SerializeToString()
        body = len(header).to_bytes(4, "little") + header + model
        return memoryview(_MAGIC + hashlib.sha256(body).digest() + body)


# ------------------------------------------------------------------------------------------------------ running


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> _Engine | None:
        cuda.require_context()
        data = bytes(serialized_engine)
        body = data[36:]
        if data[:4] != _MAGIC or hashlib.sha256(body).digest() != data[4:36]:
            _complain(self._logger, "Serialization assertion magicTag failed: corrupt plan")
            return None
        size = int.from_bytes(body[:4], "little")
        header = json.loads(body[4 : 4 + size])
        if header["version"] != __version__:
            _complain(self._logger, f"the engine plan file is of TensorRT {header['version']}")
            return None
        model = onnx.load_from_string(body[4 + size :])
        if unknown := next((name for name in header["operators"] if name not in _registry.operators), None):
            _complain(self._logger, f"Cannot find plugin: {unknown}, version: 1, namespace: lstfe")
            return None
        if not _registry.has_own_plugins and any(node.op_type == "RoiAlign" for node in model.graph.node):
            _complain(self._logger, "Cannot find plugin: ROIAlign_TRT, version: 1, namespace:")
            return None
        return _Engine(model, header["profiles"], self._logger)


class _Engine:
    def __init__(self, model: onnx.ModelProto, profiles: dict[str, Any], logger: ILogger) -> None:
        self.model = model
        self.profiles = profiles
        self.logger = logger
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self.tensors = {value.name: _Tensor(value) for value in (*model.graph.input, *model.graph.output)}

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.tensors[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return [tuple(bound) for bound in self.profiles[name]]

    def _memory_size(self) -> int:
        return 4096 if len(self.model.graph.node) > 3 else 0

    if _VERSION >= (10, 1):
        device_memory_size_v2 = property(_memory_size)
    if _MAJOR < 11:
        device_memory_size = property(_memory_size)
    if _MAJOR >= 10:

        def create_execution_context(
            self,
            strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
        ) -> _Context:
            assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
            return _Context(self)

    else:

        def create_execution_context_without_device_memory(self) -> _Context:
            return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        cuda.require_context()
        self._engine = engine
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._outputs: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: int | None = None

    def set_input_shape(self, name: str, shape: Any) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            _complain(self._engine.logger, f"{name}: {shape} is outside of the profile")
            return False
        self._inputs[name] = tuple(shape)
        self._outputs = {}
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._inputs:
            return self._inputs[name]
        if not self._outputs:
            names = [value.name for value in self._engine.model.graph.output]
            feed = {
                value.name: np.zeros(
                    self._inputs.get(value.name, self._engine.tensors[value.name].shape),
                    nptype(self._engine.tensors[value.name].dtype),
                )
                for value in self._engine.model.graph.input
            }
            found = self._engine.session.run(names, feed)
            self._outputs = {name: array.shape for name, array in zip(names, found, strict=True)}
        return self._outputs[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    if _VERSION >= (10, 1):

        def set_device_memory(self, memory: int, size: int) -> None:
            assert size >= 4096
            self._scratch = memory

    else:
        device_memory = property(fset=lambda self, memory: setattr(self, "_scratch", memory))

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda.require_context()
        missing = [name for name in self._engine.tensors if name not in self._addresses]
        if missing or self._scratch is None:
            _complain(self._engine.logger, f"no address for {missing or 'the scratch memory'}")
            return False
        for name in self._engine.tensors:
            self.get_tensor_shape(name)
        cuda.streams[stream_handle].enqueue(self._run)
        return True

    def _run(self) -> None:
        names = [value.name for value in self._engine.model.graph.output]
        feed = {value.name: self._at(value.name).copy() for value in self._engine.model.graph.input}
        for name, array in zip(names, self._engine.session.run(names, feed), strict=True):
            self._at(name)[...] = array

    def _at(self, name: str) -> Any:
        dtype = np.dtype(nptype(self._engine.tensors[name].dtype))
        shape = self.get_tensor_shape(name)
        size = int(np.prod(shape)) * dtype.itemsize
        cuda.check_address(self._addresses[name], size)
        memory = (ctypes.c_char * size).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


class _SharedFunction:
    """A function of a shared library, as ctypes gives it; TensorRT 8.5 loads plugins by hand."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


class SharedLibrary:
    """The plugin's library and libnvinfer, as ctypes would open them."""

    def __init__(self, name: str) -> None:
        self.getPluginRegistry = _SharedFunction(lambda: 1)
        self.lstfe_register = _SharedFunction(lambda registry: _registry.add(name) is not None)
