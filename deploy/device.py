"""Where a stream's arrays live and what runs the graphs on them: one interface, for host memory and for GPUs.

Arrays keep their addresses: a graph writes its outputs to the same place every time, so that nothing is allocated
once the first frames have shown all shapes. Outputs of a graph therefore last until its next run.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from deploy.graphs import Form
from lstfe.types import ByteArray

Array = npt.NDArray[Any]


def host_threads() -> int:
    """Return how many threads a graph takes on the host unless told otherwise: OMP_NUM_THREADS; 0 = one a core."""
    return int(os.environ.get("OMP_NUM_THREADS", "0"))


class Buffer(Protocol):
    """An array of a device; on the host a NumPy array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""


B = TypeVar("B", bound=Buffer)


class Staging(Protocol):
    """Host memory that takes an array of the device, always of one shape."""

    def fill(self, source: Any) -> None:
        """Ask for a copy of an array of the device; it need not be there yet when this returns."""

    def read(self) -> Array:
        """Wait for the copy and return it; the next `fill` overwrites it."""


class Device(ABC, Generic[B]):
    """Memory, and the graphs of one detector that run on it."""

    form: Form = "plain"
    """Of the graphs."""

    @abstractmethod
    def preprocess(self, frame: ByteArray) -> tuple[B, tuple[int, int]]:
        """Return the image of a frame, (H, W, 3) uint8 RGB, and its (height, width) before the padding.

        Raises UserError for a frame of a size that the graphs do not take.
        """

    @abstractmethod
    def run(self, name: str, *inputs: B | Sequence[B]) -> list[B]:
        """Run one graph; a sequence is one input, its arrays lined up along axis 1."""

    @abstractmethod
    def upload(self, name: str, tensor: str, values: Array) -> B:
        """Return an array of the device for an input of a graph, of the type that the graph wants."""

    @abstractmethod
    def empty(self, like: B, shape: tuple[int, ...] | None = None) -> B:
        """Return memory for an array of the same type, and of the same shape unless given."""

    @abstractmethod
    def copy(self, source: B, target: B) -> None:
        """Copy within the device; shapes may differ where the sizes are equal."""

    @abstractmethod
    def reshape(self, buffer: B, shape: tuple[int, ...]) -> B:
        """Return the same memory under another shape."""

    @abstractmethod
    def head(self, buffer: B, number: int) -> B:
        """Return the first entries of axis 1 of an array (1, n, ...), the same memory."""

    @abstractmethod
    def staging(self, like: B) -> Staging:
        """Return host memory for copies of arrays like this one."""

    def active(self) -> AbstractContextManager[None]:
        """Return what must surround all calls of the others."""
        return nullcontext()

    def wait(self) -> None:
        """Return once all is done that was asked for so far."""

    def close(self) -> None:
        """Give all memory back; no call may follow."""


class Graphs(Protocol):
    """Something that runs graphs on host memory by name, inputs and outputs as `graphs_of` lists them."""

    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph once."""


@runtime_checkable
class GraphsInPlace(Protocol):
    """Graphs that can write into arrays that are there already."""

    def run_into(self, outputs: Sequence[Array], name: str, *inputs: Array) -> None:
        """Run one graph once; outputs have the shapes and types that `run` gives for such inputs."""


class HostDevice(Device[Array]):
    """Host memory, and whatever runs graphs on NumPy arrays."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._inputs: dict[tuple[str, int], Array] = {}
        self._outputs: dict[tuple[object, ...], list[Array]] = {}

    def preprocess(self, frame: ByteArray) -> tuple[Array, tuple[int, int]]:
        """Run the graph of that name."""
        image, image_size = self.run("preprocess", np.ascontiguousarray(frame))
        return image, (int(image_size[0]), int(image_size[1]))

    def run(self, name: str, *inputs: Array | Sequence[Array]) -> list[Array]:
        """Run one graph on arrays where they are; lined-up ones are copied together first."""
        arrays = [
            value if isinstance(value, np.ndarray) else self._lined_up(name, place, value)
            for place, value in enumerate(inputs)
        ]
        if not isinstance(self._graphs, GraphsInPlace):
            return self._graphs.run(name, *arrays)
        key = (name, *(array.shape for array in arrays))
        outputs = self._outputs.get(key)
        if outputs is None:
            outputs = self._outputs[key] = self._graphs.run(name, *arrays)
        else:
            self._graphs.run_into(outputs, name, *arrays)
        return outputs

    def _lined_up(self, name: str, place: int, parts: Sequence[Array]) -> Array:
        joined = self._inputs.get((name, place))
        if joined is None:
            joined = self._inputs[name, place] = np.concatenate(parts, axis=1)
        else:
            np.concatenate(parts, axis=1, out=joined)
        return joined

    def upload(self, name: str, tensor: str, values: Array) -> Array:
        """Return a copy: the host's graphs take the types that they are given."""
        return values.copy()

    def empty(self, like: Array, shape: tuple[int, ...] | None = None) -> Array:
        """Return an array of NumPy's."""
        return np.empty(like.shape if shape is None else shape, like.dtype)

    def copy(self, source: Array, target: Array) -> None:
        """Copy at once."""
        np.copyto(target, source.reshape(target.shape))

    def reshape(self, buffer: Array, shape: tuple[int, ...]) -> Array:
        """Return a view."""
        return buffer.reshape(shape)

    def head(self, buffer: Array, number: int) -> Array:
        """Return a view."""
        return buffer[:, :number]

    def staging(self, like: Array) -> Staging:
        """Return an array of its own: graphs overwrite theirs."""
        return HostStaging(np.empty_like(like))


class HostStaging:
    """A copy on the host of something on the host."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def fill(self, source: Array) -> None:
        """Copy at once."""
        np.copyto(self._array, source)

    def read(self) -> Array:
        """Return the copy."""
        return self._array
