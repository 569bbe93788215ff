"""Runs a bundle's engines: TensorRT 8.5 to 11 and pycuda, without torch and onnx.

Each stream has a `TensorRTDevice` of its own, with its execution contexts, its CUDA stream and its memory, all of which
are bounded and given back at the stream's end. Contexts work one after the other and share one scratch memory. A graph
is recorded at its second run and replayed from then on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.device import Device
from deploy.graphs import Form
from deploy.tensorrt.cuda import Array, CudaError, DeviceArray, LaunchGraph, Memory
from deploy.tensorrt.engines import RESAMPLE_INPUTS, Engines, shape_text
from deploy.tensorrt.manifest import EngineError
from deploy.tensorrt.resampling import NAME as RESAMPLE
from deploy.tensorrt.resampling import padded_size, resampling_of
from lstfe.types import ByteArray


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
            engines.require_in_profile(name, tensor, array.shape, f"{tensor} of {shape_text(array.shape)}")
            if not self._context.set_input_shape(tensor, array.shape):
                raise EngineError(
                    f"graph {name}: {tensor} {shape_text(array.shape)} is refused: {self._reason()}"
                )
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
        if self._runs == 2:
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
        weights = [self.upload(RESAMPLE, name, getattr(resampling, name)) for name in RESAMPLE_INPUTS[1:]]
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
        self.overwrite(target, staging)
        return target

    def overwrite(self, target: DeviceArray, values: Array) -> None:
        """Copy values of the host, in the target's type; they are there once this returns."""
        self._memory.upload(values, target)
        self._memory.stream.synchronize()

    def download(self, source: DeviceArray) -> Array:
        """Return a copy on the host."""
        found = np.empty(source.shape, source.dtype)
        self._memory.download(source, found)
        self._memory.stream.synchronize()
        return found

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


def _lined_up(parts: Sequence[DeviceArray]) -> DeviceArray:
    """Return what several arrays are together along axis 1, without an address."""
    first = parts[0]
    return DeviceArray(0, (1, sum(part.shape[1] for part in parts), *first.shape[2:]), first.dtype)
