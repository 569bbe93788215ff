"""What every part knows: the version, its enumerations, loggers and the registry of plugins."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx

__version__ = os.environ.get("LSTFE_FAKE_TENSORRT", "10.13.2.6")
VERSION = tuple(int(part) for part in __version__.split(".")[:2])
MAJOR = VERSION[0]
MAGIC = b"plan"


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 8


float32 = DataType.FLOAT
float16 = DataType.HALF

_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
    DataType.INT64: np.int64,
}
FROM_ONNX = {
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


def complain(logger: ILogger, message: str) -> None:
    logger.log(ILogger.Severity.ERROR, message)


def require_driver(logger: ILogger) -> None:
    """What pybind11 raises where the library returns no object; the reason is a mere warning to TensorRT."""
    if os.environ.get("LSTFE_FAKE_OLD_DRIVER"):
        logger.log(ILogger.Severity.WARNING, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")


if MAJOR >= 11:
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0})
    BuilderFlag = enum.Enum("BuilderFlag", ["TF32", "STRIP_PLAN"])
elif MAJOR == 10:
    NetworkDefinitionCreationFlag = enum.IntEnum(
        "NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    )
    BuilderFlag = enum.Enum("BuilderFlag", ["FP16", "BF16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS"])
else:
    NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0})
    BuilderFlag = enum.Enum("BuilderFlag", ["FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS"])

if MAJOR >= 10:

    class ExecutionContextAllocationStrategy(enum.Enum):
        STATIC = 0
        ON_PROFILE_CHANGE = 1
        USER_MANAGED = 2

else:
    PreviewFeature = enum.IntEnum(
        "PreviewFeature",
        {"FASTER_DYNAMIC_SHAPES_0805": 0, "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805": 1}
        | ({"PROFILE_SHARING_0806": 2} if VERSION >= (8, 6) else {}),
    )
    TacticSource = enum.IntEnum(
        "TacticSource",
        {"CUBLAS": 0, "CUBLAS_LT": 1, "CUDNN": 2, "EDGE_MASK_CONVOLUTIONS": 3, "JIT_CONVOLUTIONS": 4},
    )


class LayerType(enum.Enum):
    CONSTANT = 0
    SHAPE = 1
    CONVOLUTION = 2
    QUANTIZE = 3
    DEQUANTIZE = 4
    OTHER = 5


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

    if VERSION >= (8, 6):

        def load_library(self, plugin_path: str) -> object | None:
            return self.add(plugin_path)

    if VERSION >= (10, 0):

        def get_creator(self, type: str, version: str, plugin_namespace: str = "") -> object | None:
            return self._find(type, version, plugin_namespace)

    else:

        def get_plugin_creator(self, type: str, version: str, plugin_namespace: str = "") -> object | None:
            return self._find(type, version, plugin_namespace)


registry = _Registry()


def get_plugin_registry() -> _Registry:
    return registry


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    """Register TensorRT's own plugins; its parser does this by itself, deserialising an engine does not."""
    registry.has_own_plugins = True
    return True


def unknown_operator(model: onnx.ModelProto) -> str | None:
    names = (node.op_type for node in model.graph.node if node.domain == "lstfe")
    return next((name for name in names if name not in registry.operators), None)


class Tensor:
    """An input or output of a network or an engine."""

    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        sizes = value.type.tensor_type.shape.dim
        self.shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)
        self.dtype = FROM_ONNX[value.type.tensor_type.elem_type]
