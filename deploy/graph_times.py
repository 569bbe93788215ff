"""Where a frame's time goes, graph by graph: a device that measures what runs on another."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from deploy.device import Array, B, Device, Staging
from deploy.runtime import StreamRuntime
from lstfe.types import ByteArray

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class GraphTime:
    """One graph in steady state."""

    name: str
    ms: float
    """Median of a run, from its start to the end of all it asked of the device, its inputs lined up first."""
    runs_per_frame: float

    @property
    def ms_per_frame(self) -> float:
        """What a frame spends in it."""
        return self.ms * self.runs_per_frame


class TimedDevice(Device[B]):
    """Another device; waits for it before and after each graph, so that a frame as a whole takes longer than else."""

    def __init__(self, device: Device[B]) -> None:
        self.form = device.form
        self.seconds: dict[str, list[float]] = defaultdict(list)
        """Of each run, by graph; may be cleared at any time."""
        self._device = device

    def preprocess(self, frame: ByteArray) -> tuple[B, tuple[int, int]]:
        """Measure the way of a frame to the network's image."""
        return self._timed("preprocess", lambda: self._device.preprocess(frame))

    def run(self, name: str, *inputs: B | Sequence[B]) -> list[B]:
        """Measure a graph."""
        return self._timed(name, lambda: self._device.run(name, *inputs))

    def _timed(self, name: str, work: Callable[[], R]) -> R:
        self._device.wait()
        started = time.perf_counter()
        found = work()
        self._device.wait()
        self.seconds[name].append(time.perf_counter() - started)
        return found

    def upload(self, name: str, tensor: str, values: Array) -> B:
        """Ask the other."""
        return self._device.upload(name, tensor, values)

    def empty(self, like: B, shape: tuple[int, ...] | None = None) -> B:
        """Ask the other."""
        return self._device.empty(like, shape)

    def copy(self, source: B, target: B) -> None:
        """Ask the other."""
        self._device.copy(source, target)

    def reshape(self, buffer: B, shape: tuple[int, ...]) -> B:
        """Ask the other."""
        return self._device.reshape(buffer, shape)

    def head(self, buffer: B, number: int) -> B:
        """Ask the other."""
        return self._device.head(buffer, number)

    def staging(self, like: B) -> Staging:
        """Ask the other."""
        return self._device.staging(like)

    def active(self) -> AbstractContextManager[None]:
        """Ask the other."""
        return self._device.active()

    def wait(self) -> None:
        """Ask the other."""
        self._device.wait()

    def close(self) -> None:
        """Ask the other."""
        self._device.close()


def time_graphs(runtime: StreamRuntime, frames: Iterable[ByteArray], *, warm_up: int) -> list[GraphTime]:
    """Stream frames through a detector that is new, and return its graphs, the most expensive a frame first.

    The first `warm_up` frames, in which windows fill, do not count; the detector has ended afterwards.
    """
    device: TimedDevice[Any] = TimedDevice(runtime.device)
    runtime.device = device
    counted = 0
    for place, frame in enumerate(frames):
        if place == warm_up:
            device.seconds.clear()
        counted += place >= warm_up
        runtime.push(frame)
    found = [
        GraphTime(name, statistics.median(seconds) * 1e3, len(seconds) / counted)
        for name, seconds in device.seconds.items()
    ]
    runtime.finish()
    return sorted(found, key=lambda graph: graph.ms_per_frame, reverse=True)
