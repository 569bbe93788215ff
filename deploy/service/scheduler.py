"""One set of worker threads for all streams: lanes take turns, each lane's work is done in order.

A unit of work is one frame. The network's graphs have a batch of one, so several cameras share the network by
taking turns at it, not by standing in one tensor; ONNX Runtime releases the interpreter while it computes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")
Observe = Callable[[float, float], None]
"""Told of each unit: seconds that it waited, seconds that it took."""


class LaneClosedError(RuntimeError):
    """Work was given to a lane that has been closed."""


class FairScheduler:
    """Worker threads that serve lanes in turn, one unit of work at a time."""

    def __init__(self, num_workers: int, *, observe: Observe | None = None) -> None:
        self._observe = observe or (lambda waited, took: None)
        self._turns: deque[Lane] = deque()
        """Lanes that have work and are not being worked for, the next one first."""
        self._changed = threading.Condition()
        self._is_stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"lstfe-worker-{number}", daemon=True)
            for number in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_waiting(self) -> int:
        """Units of work that no worker has begun."""
        with self._changed:
            return sum(len(lane.waiting) for lane in self._turns)

    def open_lane(self) -> Lane:
        """Open a lane: a stream, or a video."""
        return Lane(self)

    def stop(self) -> None:
        """End the workers after the units in hand; what waits is cancelled."""
        with self._changed:
            self._is_stopped = True
            lanes = list(self._turns)
            self._changed.notify_all()
        for lane in lanes:
            lane.close()
        for thread in self._threads:
            thread.join()

    def add(self, lane: Lane, unit: Unit) -> None:
        """Append a unit to a lane, for `Lane.submit`."""
        with self._changed:
            if lane.is_closed or self._is_stopped:
                raise LaneClosedError("this lane takes no more work")
            lane.waiting.append(unit)
            if not lane.is_busy and len(lane.waiting) == 1:
                self._turns.append(lane)
                self._changed.notify()

    def remove(self, lane: Lane) -> list[Unit]:
        """Take a lane out of the turns and return what it still had to do, for `Lane.close`."""
        with self._changed:
            lane.is_closed = True
            left = list(lane.waiting)
            lane.waiting.clear()
            if lane in self._turns:
                self._turns.remove(lane)
            return left

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._turns and not self._is_stopped:
                    self._changed.wait()
                if self._is_stopped:
                    return
                lane = self._turns.popleft()
                unit = lane.waiting.popleft()
                lane.is_busy = True
            unit.run(self._observe)
            del unit  # it holds a frame
            with self._changed:
                lane.is_busy = False
                if lane.waiting:  # to the end of the line
                    self._turns.append(lane)
                    self._changed.notify()


class Unit:
    """One piece of work and the future of its result."""

    __slots__ = ("_since", "_work", "future")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self._work = work
        self._since = time.perf_counter()

    def run(self, observe: Observe) -> None:
        """Do the work unless it was cancelled; whatever it raises belongs to its future."""
        if not self.future.set_running_or_notify_cancel():
            return
        begun = time.perf_counter()
        try:
            result = self._work()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            observe(begun - self._since, time.perf_counter() - begun)
            self.future.set_result(result)


class Lane:
    """The work of one stream: done in order, one unit at a time, in turn with the other lanes."""

    def __init__(self, scheduler: FairScheduler) -> None:
        self._scheduler = scheduler
        self.waiting: deque[Unit] = deque()
        self.is_busy = False
        self.is_closed = False

    def submit(self, work: Callable[[], Result]) -> Future[Result]:
        """Append a unit of work; raises LaneClosedError after `close`."""
        unit = Unit(work)
        self._scheduler.add(self, unit)
        return unit.future

    def close(self) -> None:
        """Take no more work and cancel what waits; the unit in hand is finished."""
        for unit in self._scheduler.remove(self):
            unit.future.cancel()
