"""pycuda.driver without a GPU: the calls that this project makes, with pycuda 2026.1's names and arguments.

Memory is the host's, with real addresses; every access is checked against what is allocated. Work on a stream is put
off until something waits for it, as on a GPU: who reads or overwrites too early sees that.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np


class Error(Exception):
    pass


class MemoryError(Error):
    pass


class LogicError(Error):
    pass


class event_flags:
    DISABLE_TIMING = 2


class _Gpu:
    """What tests turn: how many GPUs there are, their name, and how much memory is left."""

    count = 1
    name = "Host GPU"
    compute_capability = (9, 0)
    total_bytes = 1 << 30
    used_bytes = 0
    initialised = False
    leaked = 0
    """Objects that ended while no context was current: those of another thread than opened the GPU would stay."""
    allocations: dict[int, DeviceAllocation] = {}  # noqa: RUF012


gpu = _Gpu
_current = threading.local()
streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()


def init(flags: int = 0) -> None:
    gpu.initialised = True
    if gpu.count == 0:
        raise Error("cuInit failed: no CUDA-capable device is detected")


class Device:
    def __init__(self, number: int) -> None:
        assert gpu.initialised, "init first"
        self._number = number

    @staticmethod
    def count() -> int:
        return gpu.count

    def name(self) -> str:
        return gpu.name

    def compute_capability(self) -> tuple[int, int]:
        return gpu.compute_capability

    def total_memory(self) -> int:
        return gpu.total_bytes

    def retain_primary_context(self) -> Context:
        return Context()


class Context:
    def push(self) -> None:
        _stack().append(self)

    @staticmethod
    def pop() -> None:
        _stack().pop()

    def detach(self) -> None:
        pass


def _stack() -> list[Context]:
    if not hasattr(_current, "stack"):
        _current.stack = []
    return _current.stack


def require_context() -> None:
    if not _stack():
        raise LogicError("context is not current on this thread: invalid device context")


class _Owned:
    """What lives in the context."""

    def __del__(self) -> None:
        gpu.leaked += not _stack()


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        self._bytes = np.full(size, 0xA5, np.uint8)  # what was there before
        self.size = size
        self.address = self._bytes.ctypes.data
        gpu.allocations[self.address] = self
        gpu.used_bytes += size

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        require_context()
        if gpu.allocations.pop(self.address, None) is None:
            raise LogicError("freed twice")
        gpu.used_bytes -= self.size


def mem_alloc(size: int) -> DeviceAllocation:
    require_context()
    if gpu.used_bytes + size > gpu.total_bytes:
        raise MemoryError("cuMemAlloc failed: out of memory")
    return DeviceAllocation(size)


def mem_get_info() -> tuple[int, int]:
    require_context()
    return gpu.total_bytes - gpu.used_bytes, gpu.total_bytes


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> Any:
    require_context()
    array = np.empty(shape, dtype, order).view(_PageLocked)
    array.owner = _Owned()
    return array


class _PageLocked(np.ndarray):
    owner: _Owned | None = None


def check_address(address: int, size: int) -> None:
    for start, allocation in gpu.allocations.items():
        if start <= address and address + size <= start + allocation.size:
            return
    raise LogicError(f"an illegal memory access was encountered: {size} bytes at {address:#x}")


class Stream(_Owned):
    def __init__(self, flags: int = 0) -> None:
        require_context()
        self.flags = flags
        self.work: deque[Any] = deque()
        self.captured: list[Callable[[], None]] | None = None
        self.handle = id(self)
        streams[self.handle] = self

    def enqueue(self, work: Callable[[], None]) -> None:
        if self.captured is not None:
            self.captured.append(work)
        else:
            self.work.append(work)

    def synchronize(self) -> None:
        require_context()
        if self.captured is not None:
            raise LogicError("operation not permitted when stream is capturing")
        while self.work:
            self.work.popleft()()


class Event(_Owned):
    def __init__(self, flags: int = 0) -> None:
        require_context()
        self._stream: Stream | None = None
        self._mark: Callable[[], None] | None = None

    def record(self, stream: Stream | None = None) -> Event:
        assert stream is not None, "this project never uses the default stream"
        self._stream, self._mark = stream, lambda: None
        stream.enqueue(self._mark)
        return self

    def synchronize(self) -> Event:
        require_context()
        if self._stream is not None and self._mark in self._stream.work:
            while (work := self._stream.work.popleft()) is not self._mark:
                work()
        return self


def memset_d8_async(dest: Any, data: int, size: int, stream: Stream | None = None) -> None:
    _on(stream, lambda: _checked(int(dest), size, lambda: ctypes.memset(int(dest), data, size)))


def memcpy_htod_async(dest: int, src: Any, stream: Stream | None = None) -> None:
    assert src.flags.c_contiguous
    _on(
        stream,
        lambda: _checked(
            int(dest), src.nbytes, lambda: ctypes.memmove(int(dest), src.ctypes.data, src.nbytes)
        ),
    )


def memcpy_dtoh_async(dest: Any, src: int, stream: Stream | None = None) -> None:
    assert dest.flags.c_contiguous
    assert dest.flags.writeable
    _on(
        stream,
        lambda: _checked(
            int(src), dest.nbytes, lambda: ctypes.memmove(dest.ctypes.data, int(src), dest.nbytes)
        ),
    )


def memcpy_dtod_async(dest: int, src: int, size: int, stream: Stream | None = None) -> None:
    def copy() -> None:
        check_address(int(src), size)
        check_address(int(dest), size)
        ctypes.memmove(int(dest), int(src), size)

    _on(stream, copy)


def _on(stream: Stream | None, work: Callable[[], None]) -> None:
    require_context()
    assert stream is not None, "this project never uses the default stream"
    stream.enqueue(work)


def _checked(address: int, size: int, work: Callable[[], Any]) -> None:
    check_address(address, size)
    work()


class DriverLibrary:
    """libcuda's functions for graphs of launches, as ctypes would give them."""

    def __init__(self) -> None:
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.num_launched = 0
        self.num_executables = 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:
        assert streams[stream.value].flags == 1, (
            "other threads' work on the default stream would end the capture"
        )
        streams[stream.value].captured = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        captured, streams[stream.value].captured = streams[stream.value].captured, None
        number = len(self.graphs) + 1
        self.graphs[number] = captured
        graph._obj.value = number
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:
        executable._obj.value = graph.value
        self.num_executables += 1
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:
        return 0

    def cuGraphExecDestroy(self, executable: Any) -> int:
        self.num_executables -= 1
        return 0

    def cuGraphLaunch(self, executable: Any, stream: Any) -> int:
        self.num_launched += 1
        for work in self.graphs[executable.value]:
            streams[stream.value].enqueue(work)
        return 0
