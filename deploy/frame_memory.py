"""What a stream remembers of its frames: slots of fixed memory that frames take and give back.

How many slots there are is said by lstfe/window.py and does not depend on the stream's length. Their memory is
allocated when the first frame shows the shapes, for all slots at once, and never after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deploy.device import Device, Staging
from lstfe.types import FloatArray

# Of whichever device the stream runs on.
Stored = Any


class Slots:
    """A fixed number of places, each for the arrays of one frame: `take` one, `release` it, by frame index."""

    def __init__(self, number: int, what: str) -> None:
        self._free = list(range(number))[::-1]
        self._taken: dict[int, int] = {}
        self._arrays: list[list[Stored]] = []
        self._number = number
        self._what = what

    def __contains__(self, frame_index: object) -> bool:
        return frame_index in self._taken

    def __len__(self) -> int:
        return len(self._taken)

    def __getitem__(self, frame_index: int) -> list[Stored]:
        """Return the arrays of a frame that has a place."""
        return self._arrays[self._taken[frame_index]]

    def take(
        self,
        frame_index: int,
        device: Device[Any],
        arrays: Sequence[Stored],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        """Give a frame a place and copy its arrays there, which keep them under `shapes`."""
        assert self._free, f"all {self._number} slots for {self._what} are taken by {sorted(self._taken)}"
        if not self._arrays:
            self._arrays = [
                [device.empty(array, shape) for array, shape in zip(arrays, shapes, strict=True)]
                for _ in range(self._number)
            ]
        place = self._taken[frame_index] = self._free.pop()
        for array, target in zip(arrays, self._arrays[place], strict=True):
            device.copy(array, target)

    def release(self, frame_index: int) -> None:
        """Free a frame's place if it has one."""
        if (place := self._taken.pop(frame_index, None)) is not None:
            self._free.append(place)

    def keep(self, is_needed: Callable[[int], bool]) -> None:
        """Free the places of all frames that are not needed."""
        for frame_index in [index for index in self._taken if not is_needed(index)]:
            self.release(frame_index)


class Descriptors:
    """The frame selection's descriptors of remembered frames, on the host."""

    def __init__(self, number: int) -> None:
        """`number` is how many frames are remembered at most."""
        self._number = number
        self._by_frame: dict[int, Staging] = {}
        self._free: list[Staging] = []

    def take(self, frame_index: int, device: Device[Any], descriptor: Stored) -> None:
        """Ask for a copy of a frame's descriptor."""
        if not self._by_frame and not self._free:
            self._free = [device.staging(descriptor) for _ in range(self._number)]
        staging = self._free.pop()
        staging.fill(descriptor)
        self._by_frame[frame_index] = staging

    def __getitem__(self, frame_index: int) -> FloatArray:
        """Return a frame's descriptor, (1, E)."""
        return self._by_frame[frame_index].read().astype(np.float32, copy=False)

    def keep(self, is_needed: Callable[[int], bool]) -> None:
        """Forget the descriptors of all frames that are not needed."""
        for frame_index in [index for index in self._by_frame if not is_needed(index)]:
            self._free.append(self._by_frame.pop(frame_index))
