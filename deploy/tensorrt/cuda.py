"""The little of CUDA that engines need, through pycuda: memory, copies, one stream, graphs of launches.

Everything lives in the device's primary context, which TensorRT and the plugin use, too; it is made current around
each piece of work and never stays so, so that several streams may share a process and its threads.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from lstfe.errors import UserError

Array = npt.NDArray[Any]
_MIB = 2**20
# cuStreamBeginCapture: other threads may go on allocating while this one captures.
_CAPTURE_THREAD_LOCAL = 1
# Else whatever another thread does on the default stream would end a capture, and fail itself.
_NON_BLOCKING = 1


class CudaError(UserError):
    """There is no GPU that can be used, or it has no memory left."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """What an engine is made for."""

    name: str
    compute_capability: str
    """`9.0`."""


@dataclass(frozen=True, slots=True)
class DeviceArray:
    """An array in a GPU's memory."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fixed: bool = False
    """These values are at this address and no other as long as the stream lives, so that graphs may read them there."""

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * self.dtype.itemsize


class Cuda:
    """The first GPU's primary context; CUDA_VISIBLE_DEVICES says which one is the first."""

    def __init__(self) -> None:
        """Open the GPU; raises CudaError where there is none."""
        try:
            import pycuda.driver as driver
        except ModuleNotFoundError as error:
            raise CudaError(
                f"backend tensorrt needs {error.name}, which is not installed: run `pip install pycuda`"
            ) from None
        except ImportError as error:
            raise CudaError(f"pycuda cannot be loaded ({error}); is NVIDIA's driver installed?") from None
        self.driver: Any = driver
        try:
            driver.init()
            if driver.Device.count() == 0:
                raise CudaError("no GPU here; TensorRT needs one")
            device = driver.Device(0)
            self.gpu = Gpu(device.name(), "{}.{}".format(*device.compute_capability()))
            self._context = device.retain_primary_context()
            self.set_up = threading.RLock()
            """Held while engines are loaded, contexts made and launches recorded, which are not for several threads."""
        except driver.Error as error:
            raise CudaError(f"no usable GPU: {error}; TensorRT needs one and its driver") from None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current for a while; a GPU out of memory becomes a CudaError."""
        self._context.push()
        try:
            yield
        except self.driver.MemoryError as error:
            raise CudaError(self._out_of_memory(str(error))) from None
        finally:
            self.driver.Context.pop()

    def _out_of_memory(self, reason: str) -> str:
        free, total = self.driver.mem_get_info()
        return (
            f"{self.gpu.name}: out of memory ({reason}), {free // _MIB} of {total // _MIB} MiB are free; "
            "run fewer streams on it, or build engines of a lower precision or a smaller image"
        )


@cache
def open_cuda() -> Cuda:
    """Return the first GPU, opened once a process; raises CudaError."""
    return Cuda()


class Memory:
    """One stream's memory on the GPU and its page-locked memory on the host."""

    def __init__(self, cuda: Cuda) -> None:
        self._driver = cuda.driver
        self._allocations: list[Any] = []
        self.stream: Any = cuda.driver.Stream(_NON_BLOCKING)
        self.num_bytes = 0
        """Allocated on the GPU."""

    def allocate(
        self, shape: tuple[int, ...], dtype: npt.DTypeLike, *, is_fixed: bool = False
    ) -> DeviceArray:
        """Take memory for an array, zeroed; it is held until `close`."""
        dtype = np.dtype(dtype)
        size = max(1, prod(shape) * dtype.itemsize)
        allocation = self._driver.mem_alloc(size)
        self._allocations.append(allocation)
        self.num_bytes += size
        self._driver.memset_d8_async(allocation, 0, size, self.stream)
        return DeviceArray(int(allocation), tuple(shape), dtype, is_fixed)

    def page_locked(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Take memory on the host that copies to and from the GPU need not be held up for."""
        array: Array = self._driver.pagelocked_empty(shape, np.dtype(dtype))
        return array

    def upload(self, source: Array, target: DeviceArray) -> None:
        """Copy from the host; `source` stays as it is until the stream has come so far."""
        assert source.nbytes == target.nbytes, f"{source.nbytes} bytes for {target.nbytes}"
        self._driver.memcpy_htod_async(target.address, source, self.stream)

    def download(self, source: DeviceArray, target: Array) -> None:
        """Copy to the host; it is there once the stream has come so far."""
        assert source.nbytes == target.nbytes, f"{source.nbytes} bytes for {target.nbytes}"
        self._driver.memcpy_dtoh_async(target, source.address, self.stream)

    def copy(self, source: DeviceArray, target: DeviceArray, *, offset: int = 0) -> None:
        """Copy within the GPU, `offset` bytes into the target."""
        assert offset + source.nbytes <= target.nbytes, f"{source.nbytes} bytes for {target.nbytes}"
        self._driver.memcpy_dtod_async(target.address + offset, source.address, source.nbytes, self.stream)

    def event(self) -> Any:
        """Return a mark for the stream, without a clock."""
        return self._driver.Event(self._driver.event_flags.DISABLE_TIMING)

    def close(self) -> None:
        """Give all of the GPU's memory and the stream back, once its work is done."""
        if self.stream is None:
            return
        self.stream.synchronize()
        while self._allocations:
            self._allocations.pop().free()
        self.num_bytes = 0
        self.stream = None


class LaunchGraph:
    """A recorded sequence of launches, started as one: CUDA graphs, which pycuda does not know, through the driver."""

    def __init__(self, library: Any, executable: ctypes.c_void_p) -> None:
        self._library = library
        self._executable = executable

    @staticmethod
    def record(launch: Callable[[], bool], stream: Any) -> LaunchGraph | None:
        """Record what `launch` starts on a stream, without running it; None where that cannot be recorded."""
        library = driver_library()
        handle = ctypes.c_void_p(stream.handle)
        if library is None or library.cuStreamBeginCapture_v2(handle, _CAPTURE_THREAD_LOCAL) != 0:
            return None
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        launched = launch()
        if library.cuStreamEndCapture(handle, ctypes.byref(graph)) != 0:
            return None
        flags = ctypes.c_ulonglong(0)
        is_made = (
            launched and library.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, flags) == 0
        )
        library.cuGraphDestroy(graph)
        return LaunchGraph(library, executable) if is_made else None

    def launch(self, stream: Any) -> bool:
        """Start it; say whether that worked."""
        return bool(self._library.cuGraphLaunch(self._executable, ctypes.c_void_p(stream.handle)) == 0)

    def close(self) -> None:
        """Free it."""
        self._library.cuGraphExecDestroy(self._executable)


def driver_library() -> Any:
    """Return the CUDA driver's library with graphs (CUDA 11.4 or newer), None where there is none."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        return library if hasattr(library, "cuGraphInstantiateWithFlags") else None
    return None
