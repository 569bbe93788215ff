"""Runtimes, engines and their contexts; libraries as ctypes opens them."""

from __future__ import annotations

import ctypes
import hashlib
import json
import weakref
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pycuda.driver as cuda

from tensorrt import names


class Runtime:
    def __init__(self, logger: names.ILogger) -> None:
        names.require_driver(logger)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> _Engine | None:
        cuda.require_context()
        data = bytes(serialized_engine)
        body = data[36:]
        if data[:4] != names.MAGIC or hashlib.sha256(body).digest() != data[4:36]:
            names.complain(self._logger, "Serialization assertion magicTag failed: corrupt plan")
            return None
        size = int.from_bytes(body[:4], "little")
        header = json.loads(body[4 : 4 + size])
        if header["version"] != names.__version__:
            names.complain(self._logger, f"the engine plan file is of TensorRT {header['version']}")
            return None
        model = onnx.load_from_string(body[4 + size :])
        if unknown := next(
            (name for name in header["operators"] if name not in names.registry.operators), None
        ):
            names.complain(self._logger, f"Cannot find plugin: {unknown}, version: 1, namespace: lstfe")
            return None
        if not names.registry.has_own_plugins and any(
            node.op_type == "RoiAlign" for node in model.graph.node
        ):
            names.complain(self._logger, "Cannot find plugin: ROIAlign_TRT, version: 1, namespace:")
            return None
        return _Engine(model, header, self._logger)


class _Engine:
    def __init__(self, model: onnx.ModelProto, header: dict[str, Any], logger: names.ILogger) -> None:
        self.model = model
        self.profiles = header["profiles"]
        self.logger = logger
        self.shares_profiles = header["shares_profiles"]
        self.waits = header["waits"]
        self.contexts: weakref.WeakSet[_Context] = weakref.WeakSet()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        self.tensors = {
            value.name: names.Tensor(value) for value in (*model.graph.input, *model.graph.output)
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_dtype(self, name: str) -> names.DataType:
        return self.tensors[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return [tuple(bound) for bound in self.profiles[name]]

    def _memory_size(self) -> int:
        return 4096 if len(self.model.graph.node) > 3 else 0  # small graphs compute in registers alone

    if names.VERSION >= (10, 1):
        device_memory_size_v2 = property(_memory_size)
    if names.MAJOR < 11:
        device_memory_size = property(_memory_size)
    if names.MAJOR >= 10:

        def create_execution_context(
            self,
            strategy: names.ExecutionContextAllocationStrategy = names.ExecutionContextAllocationStrategy.STATIC,
        ) -> _Context:
            assert strategy == names.ExecutionContextAllocationStrategy.USER_MANAGED
            return _Context(self)

    else:

        def create_execution_context_without_device_memory(self) -> _Context:
            return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        cuda.require_context()
        self._engine = engine
        has_free_shapes = any(-1 in engine.tensors[value.name].shape for value in engine.model.graph.input)
        self._has_profile = engine.shares_profiles or not has_free_shapes or not engine.contexts
        if not self._has_profile:
            names.complain(engine.logger, "Profile 0 has been chosen by another IExecutionContext.")
        engine.contexts.add(self)
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._outputs: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: int | None = None

    def set_input_shape(self, name: str, shape: Any) -> bool:
        if not self._has_profile:
            return False
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            names.complain(self._engine.logger, f"{name}: {shape} is outside of the profile")
            return False
        self._inputs[name] = tuple(shape)
        self._outputs = {}
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._inputs:
            return self._inputs[name]
        if not self._outputs:
            outputs = [value.name for value in self._engine.model.graph.output]
            feed = {
                value.name: np.zeros(
                    self._inputs.get(value.name, self._engine.tensors[value.name].shape),
                    names.nptype(self._engine.tensors[value.name].dtype),
                )
                for value in self._engine.model.graph.input
            }
            found = self._engine.session.run(outputs, feed)
            self._outputs = {name: array.shape for name, array in zip(outputs, found, strict=True)}
        return self._outputs[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    if names.VERSION >= (10, 1):

        def set_device_memory(self, memory: int, size: int) -> None:
            assert size >= 4096
            self._scratch = memory

    else:
        device_memory = property(fset=lambda self, memory: setattr(self, "_scratch", memory))

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda.require_context()
        missing = [name for name in self._engine.tensors if name not in self._addresses]
        if missing or self._scratch is None:
            names.complain(self._engine.logger, f"no address for {missing or 'the scratch memory'}")
            return False
        for name in self._engine.tensors:
            self.get_tensor_shape(name)
        if self._engine.waits and cuda.streams[stream_handle].captured is not None:
            names.complain(
                self._engine.logger, "a size that depends on data cannot be waited for in a capture"
            )
            return False
        cuda.streams[stream_handle].enqueue(self._run)
        return True

    def _run(self) -> None:
        outputs = [value.name for value in self._engine.model.graph.output]
        feed = {value.name: self._at(value.name).copy() for value in self._engine.model.graph.input}
        for name, array in zip(outputs, self._engine.session.run(outputs, feed), strict=True):
            self._at(name)[...] = array

    def _at(self, name: str) -> Any:
        dtype = np.dtype(names.nptype(self._engine.tensors[name].dtype))
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
        self.lstfe_register = _SharedFunction(lambda registry: names.registry.add(name) is not None)
