"""Runs a bundle's engines: TensorRT 8.5 to 11 and pycuda, without torch and onnx.

`Engines` are loaded once a process and shared; each stream has a `TensorRTDevice` of its own, with its execution
contexts, its CUDA stream and its memory, all of which are bounded and given back at the stream's end. Contexts work
one after the other and share one scratch memory. A graph is recorded at its second run and replayed from then on.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from deploy.bundle import Bundle
from deploy.cuda import Array, Cuda, CudaError, DeviceArray, LaunchGraph, Memory, open_cuda
from deploy.device import Device
from deploy.engine_manifest import (
    PLUGIN_FILE,
    EngineError,
    EngineManifest,
    check_files,
    find_engines,
)
from deploy.graphs import Form, graphs_of
from deploy.resampling import NAME as RESAMPLE
from deploy.resampling import padded_size, resampling_of
from deploy.tensorrt_library import TensorRT, open_tensorrt
from lstfe.config import Config
from lstfe.types import ByteArray

_LOG = logging.getLogger(__name__)
_RESAMPLE_INPUTS = ("frame", "row_weights", "column_weights", "inside")
# Its suppression finds as many boxes as there are, which the host must know before it goes on.
_NOT_RECORDED = ("decode",)
_shared: WeakValueDictionary[Path, Engines] = WeakValueDictionary()


class Engines:
    """The engines of one folder, deserialised; safe to share between streams and threads."""

    def __init__(
        self, tensorrt: TensorRT, cuda: Cuda, directory: Path, manifest: EngineManifest, config: Config
    ) -> None:
        """Load all that the manifest lists; raises EngineError for what is missing, changed or refused."""
        self.tensorrt = tensorrt
        self.cuda = cuda
        self.manifest = manifest
        self.config = config
        graphs = graphs_of(config, manifest.form)
        self.inputs = {graph.name: graph.inputs for graph in graphs if graph.name != "preprocess"}
        self.outputs = {graph.name: graph.outputs for graph in graphs if graph.name != "preprocess"}
        self.inputs[RESAMPLE], self.outputs[RESAMPLE] = _RESAMPLE_INPUTS, ("image",)
        check_files(directory, manifest.files)
        if missing := sorted({f"{name}.plan" for name in self.inputs} - manifest.files.keys()):
            raise EngineError(f"{directory}: no {', '.join(missing)}; build the engines again")
        if manifest.has_plugin:
            tensorrt.load_plugin(directory / PLUGIN_FILE)
        self._directory = directory
        self._profiles_taken: set[str] = set()
        with cuda.set_up, cuda.active():
            self._runtime = tensorrt.start(tensorrt.module.Runtime)
            self._engines = {name: self._load(name) for name in self.inputs}
        _LOG.info("engines %s on %s", directory.name, cuda.gpu.name)

    def _load(self, name: str) -> Any:
        path = self._directory / f"{name}.plan"
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise EngineError(
                f"{path}: TensorRT {self.tensorrt.version} refuses it: {self.tensorrt.last_error()}; "
                "build the engines again"
            )
        return engine

    def __getitem__(self, name: str) -> Any:
        return self._engines[name]

    def dtype(self, name: str, tensor: str) -> np.dtype[Any]:
        """Return the type of a graph's input or output."""
        dtype: np.dtype[Any] = np.dtype(self.tensorrt.module.nptype(self[name].get_tensor_dtype(tensor)))
        return dtype

    @property
    def scratch_bytes(self) -> int:
        """Memory that the hungriest engine computes in."""
        # 11 has no `device_memory_size` any more, 8.5 to 10.0 no `_v2` yet.
        names = ("device_memory_size_v2", "device_memory_size")
        attribute = next(name for name in names if hasattr(self["backbone"], name))
        return max(int(getattr(engine, attribute)) for engine in self._engines.values())

    def new_context(self, name: str) -> Any:
        """Return an execution context without memory of its own; raises EngineError."""
        module = self.tensorrt.module
        with self.cuda.set_up:
            engine = self._engine_for_context(name)
            if self.tensorrt.major >= 10:
                strategy = module.ExecutionContextAllocationStrategy.USER_MANAGED
                context = engine.create_execution_context(strategy)
            else:
                context = engine.create_execution_context_without_device_memory()
        if context is None:
            raise EngineError(
                f"graph {name}: no execution context on {self.cuda.gpu.name}: {self.tensorrt.last_error()}; "
                "run fewer streams on this GPU"
            )
        return context

    def _engine_for_context(self, name: str) -> Any:
        """Return the engine, or before 8.6 another copy of it: there, contexts cannot share an engine's profile."""
        has_free_shapes = any(
            -1 in tuple(self[name].get_tensor_shape(tensor)) for tensor in self.inputs[name]
        )
        if self.tensorrt.shares_profiles or not has_free_shapes:
            return self[name]
        if name not in self._profiles_taken:
            self._profiles_taken.add(name)
            return self[name]
        return self._load(name)

    def require_in_profile(self, name: str, tensor: str, shape: tuple[int, ...], what: str) -> None:
        """Raise EngineError for a shape that the engine was not built for."""
        fixed = tuple(self[name].get_tensor_shape(tensor))
        bounds = [fixed] * 3 if -1 not in fixed else self[name].get_tensor_profile_shape(tensor, 0)
        least, _, most = (tuple(bound) for bound in bounds)
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            raise EngineError(
                f"{what}: graph {name} takes {tensor} from {_text(least)} to {_text(most)}, got {_text(shape)}; "
                "build engines for it: `lstfe engine build BUNDLE --image-size HEIGHTxWIDTH`"
            )


def open_engines(bundle: Bundle) -> Engines:
    """Load the engines of a bundle that were built for this machine, once a process; raises EngineError, CudaError."""
    tensorrt = open_tensorrt()
    cuda = open_cuda()
    directory, manifest = find_engines(bundle, tensorrt.version, cuda.gpu)
    directory = directory.resolve()
    engines = _shared.get(directory)
    if engines is None or engines.manifest != manifest:
        engines = _shared[directory] = Engines(tensorrt, cuda, directory, manifest, bundle.config)
    return engines


class Program:
    """One graph for inputs of certain shapes: a context, where its inputs and outputs lie, and its recording."""

    def __init__(self, engines: Engines, name: str, memory: Memory, inputs: Sequence[DeviceArray]) -> None:
        """Bind everything; `inputs` that are fixed are read where they are, the others from arrays of its own."""
        self._name = name
        self._engines = engines
        self._stream = memory.stream
        self._context = engines.new_context(name)
        self._runs = 0
        self._recording: LaunchGraph | None = None
        names = engines.inputs[name]
        for tensor, array in zip(names, inputs, strict=True):
            if (expected := engines.dtype(name, tensor)) != array.dtype:
                raise EngineError(
                    f"graph {name} takes {tensor} as {expected}, got {array.dtype}; build the engines again"
                )
            engines.require_in_profile(name, tensor, array.shape, f"{tensor} of {_text(array.shape)}")
            if not self._context.set_input_shape(tensor, array.shape):
                raise EngineError(f"graph {name}: {tensor} {_text(array.shape)} is refused: {self._reason()}")
        self.inputs = [
            array if array.is_fixed else memory.allocate(array.shape, array.dtype, is_fixed=True)
            for array in inputs
        ]
        self.outputs = [self._allocate_output(tensor, memory) for tensor in engines.outputs[name]]
        bound = zip((*names, *engines.outputs[name]), (*self.inputs, *self.outputs), strict=True)
        for tensor, array in bound:
            if not self._context.set_tensor_address(tensor, array.address):
                raise EngineError(f"graph {name}: {tensor} cannot be bound: {self._reason()}")

    def _allocate_output(self, tensor: str, memory: Memory) -> DeviceArray:
        shape = tuple(self._context.get_tensor_shape(tensor))
        if min(shape, default=0) < 0:
            raise EngineError(
                f"graph {self._name}: the shape of {tensor} depends on data, expected a fixed one"
            )
        return memory.allocate(shape, self._engines.dtype(self._name, tensor), is_fixed=True)

    def use_scratch(self, scratch: DeviceArray) -> None:
        """Let the context compute there."""
        if hasattr(self._context, "set_device_memory"):  # 10.1 and newer
            self._context.set_device_memory(scratch.address, scratch.nbytes)
        else:
            self._context.device_memory = scratch.address

    def run(self) -> None:
        """Start the graph on the stream."""
        self._runs += 1
        # The first run sets up what must not be recorded.
        if self._runs == 2 and self._name not in _NOT_RECORDED:
            with self._engines.cuda.set_up:
                self._recording = LaunchGraph.record(self._launch, self._stream)
        started = self._launch() if self._recording is None else self._recording.launch(self._stream)
        if not started:
            raise EngineError(f"graph {self._name} did not run: {self._reason()}")

    def _launch(self) -> bool:
        return bool(self._context.execute_async_v3(self._stream.handle))

    def _reason(self) -> str:
        return self._engines.tensorrt.last_error()

    def close(self) -> None:
        """Free the recording and the context."""
        if self._recording is not None:
            self._recording.close()
        self._context = self._stream = None


class TensorRTDevice(Device[DeviceArray]):
    """One stream on a GPU."""

    def __init__(self, engines: Engines) -> None:
        self.form: Form = engines.manifest.form
        self._engines = engines
        self._programs: dict[tuple[object, ...], Program] = {}
        self._resampled: _Resampled | None = None
        self._page_locked: list[PageLocked] = []
        with engines.cuda.active():
            self._memory = Memory(engines.cuda)
            self._scratch = self._memory.allocate((engines.scratch_bytes,), np.uint8)

    @property
    def num_bytes(self) -> int:
        """The stream's memory on the GPU, without the engines."""
        return self._memory.num_bytes

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the GPU's context current; a stream that finds no memory gives back what it has."""
        try:
            with self._engines.cuda.active():
                yield
        except CudaError:
            with self._engines.cuda.active():
                self.close()
            raise

    def preprocess(self, frame: ByteArray) -> tuple[DeviceArray, tuple[int, int]]:
        """Upload a frame and resample it."""
        size = (frame.shape[0], frame.shape[1])
        if self._resampled is None:
            self._resampled = self._prepare_resampling(size)
        resampled = self._resampled
        resampled.uploaded.synchronize()
        np.copyto(resampled.staging, frame)
        self._memory.upload(resampled.staging, resampled.inputs[0])
        resampled.uploaded.record(self._memory.stream)
        (image,) = self.run(RESAMPLE, *resampled.inputs)
        return image, resampled.image_size

    def _prepare_resampling(self, frame_size: tuple[int, int]) -> _Resampled:
        resampling = resampling_of(frame_size, self._engines.config.model)
        what = f"frames of {frame_size[0]}x{frame_size[1]} pixels (height x width)"
        self._engines.require_in_profile(RESAMPLE, "frame", (*frame_size, 3), what)
        self._engines.require_in_profile(
            "backbone", "image", (1, 3, *padded_size(resampling.image_size)), what
        )
        staging = self._memory.page_locked((*frame_size, 3), np.uint8)
        frame = self._memory.allocate(staging.shape, np.uint8, is_fixed=True)
        weights = [self.upload(RESAMPLE, name, getattr(resampling, name)) for name in _RESAMPLE_INPUTS[1:]]
        return _Resampled(resampling.image_size, staging, [frame, *weights], self._memory.event())

    def run(self, name: str, *inputs: DeviceArray | Sequence[DeviceArray]) -> list[DeviceArray]:
        """Run one graph; inputs that are not fixed are copied to where it reads."""
        whole = [value if isinstance(value, DeviceArray) else _lined_up(value) for value in inputs]
        key = (name, *((array.shape, array.address if array.is_fixed else None) for array in whole))
        program = self._programs.get(key)
        if program is None:
            program = Program(self._engines, name, self._memory, whole)
            program.use_scratch(self._scratch)
            self._programs[key] = program
        for value, target in zip(inputs, program.inputs, strict=True):
            self._bring(value, target)
        program.run()
        return program.outputs

    def _bring(self, value: DeviceArray | Sequence[DeviceArray], target: DeviceArray) -> None:
        if isinstance(value, DeviceArray):
            if value.address != target.address:
                self._memory.copy(value, target)
            return
        offset = 0
        for part in value:  # the first axis is 1, so what is lined up along the second lies in a row
            self._memory.copy(part, target, offset=offset)
            offset += part.nbytes

    def upload(self, name: str, tensor: str, values: Array) -> DeviceArray:
        """Copy values of the host, once, in the type that the engine wants."""
        staging = values.astype(self._engines.dtype(name, tensor))
        target = self._memory.allocate(staging.shape, staging.dtype, is_fixed=True)
        self._memory.upload(staging, target)
        self._memory.stream.synchronize()  # `staging` ends here
        return target

    def empty(self, like: DeviceArray, shape: tuple[int, ...] | None = None) -> DeviceArray:
        """Take memory of the stream's."""
        return self._memory.allocate(like.shape if shape is None else shape, like.dtype)

    def copy(self, source: DeviceArray, target: DeviceArray) -> None:
        """Copy on the stream."""
        self._memory.copy(source, target)

    def reshape(self, buffer: DeviceArray, shape: tuple[int, ...]) -> DeviceArray:
        """Return the same address."""
        return replace(buffer, shape=shape)

    def head(self, buffer: DeviceArray, number: int) -> DeviceArray:
        """Return the same address: the first axis is 1."""
        return replace(buffer, shape=(1, number, *buffer.shape[2:]))

    def staging(self, like: DeviceArray) -> PageLocked:
        """Return page-locked memory, which ends with the device."""
        self._page_locked.append(PageLocked(self._memory, like.shape, like.dtype))
        return self._page_locked[-1]

    def wait(self) -> None:
        """Wait for the stream's work."""
        self._memory.stream.synchronize()

    def close(self) -> None:
        """Wait for the stream's work and free all that is its own, while the context is current: else it stays."""
        if self._memory.stream is not None:
            self.wait()
        while self._programs:
            self._programs.popitem()[1].close()
        while self._page_locked:
            self._page_locked.pop().close()
        self._resampled = None
        self._memory.close()

    def __del__(self) -> None:
        """Give everything back where a stream is dropped before its end."""
        if hasattr(self, "_scratch") and self._memory.num_bytes and not sys.is_finalizing():
            with self._engines.cuda.active():
                self.close()


@dataclass(frozen=True, slots=True)
class _Resampled:
    """What preprocessing keeps from frame to frame."""

    image_size: tuple[int, int]
    staging: Array
    inputs: list[DeviceArray]
    uploaded: Any
    """Event after which `staging` may be overwritten."""


class PageLocked:
    """Host memory for one array of the GPU."""

    def __init__(self, memory: Memory, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._memory = memory
        self._array = memory.page_locked(shape, dtype)
        self._copied = memory.event()

    def fill(self, source: DeviceArray) -> None:
        """Start copying."""
        self._memory.download(source, self._array)
        self._copied.record(self._memory.stream)

    def read(self) -> Array:
        """Wait and return what was copied."""
        self._copied.synchronize()
        return self._array

    def close(self) -> None:
        """Free the memory; nothing can be read any more."""
        del self._array, self._copied


class EngineGraphs:
    """Engines as `deploy.device.Graphs`: arrays of the host in and out, for comparisons. `close` frees the GPU."""

    def __init__(self, engines: Engines) -> None:
        self._device = TensorRTDevice(engines)
        self._engines = engines
        self._uploaded: dict[tuple[object, ...], DeviceArray] = {}
        self._memory = self._device._memory

    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph on arrays of any type; outputs come as the engine has them."""
        with self._device.active():
            arrays = [self._brought(name, place, value) for place, value in enumerate(inputs)]
            outputs = self._device.run(name, *arrays)
            found = [np.empty(array.shape, array.dtype) for array in outputs]
            for array, target in zip(outputs, found, strict=True):
                self._memory.download(array, target)
            self._memory.stream.synchronize()
            return found

    def _brought(self, name: str, place: int, value: Array) -> DeviceArray:
        tensor = self._engines.inputs[name][place]
        key = (name, place, value.shape)
        if key not in self._uploaded:
            self._uploaded[key] = self._device.upload(name, tensor, value)
        target = self._uploaded[key]
        self._memory.upload(np.ascontiguousarray(value, target.dtype), target)
        self._memory.stream.synchronize()
        return target

    def close(self) -> None:
        """Free the GPU's memory."""
        with self._device.active():
            self._device.close()


def _lined_up(parts: Sequence[DeviceArray]) -> DeviceArray:
    """Return what several arrays are together along axis 1, without an address."""
    first = parts[0]
    return DeviceArray(0, (1, sum(part.shape[1] for part in parts), *first.shape[2:]), first.dtype)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
