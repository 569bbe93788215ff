"""Memory that loader processes decode into and the training reads from, used over and over.

Fresh shared memory costs about as much as decoding: the kernel clears and maps every page of it.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Sequence

import numpy as np

from lstfe.types import ByteArray


class ClipMemory:
    """Slots of shared memory, a fixed number for each loader process; each holds the frames of one clip.

    Must exist before the processes are forked. A slot is claimed by its loader process alone and released by the
    training process alone, so that one byte a slot is all they share.
    """

    def __init__(self, *, num_workers: int, slots_per_worker: int, slot_bytes: int) -> None:
        self._slots_per_worker = slots_per_worker
        self._slot_bytes = -(-slot_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        num_slots = num_workers * slots_per_worker
        # Anonymous, so that a small /dev/shm (64 MiB in most containers) is no limit; pages exist once written to.
        self._pixels = mmap.mmap(-1, num_slots * self._slot_bytes)
        self._in_use = mmap.mmap(-1, num_slots)

    def claim(self, worker: int) -> int | None:
        """Return a slot of this loader process that is free, always the first; None without any."""
        first = worker * self._slots_per_worker
        slot = self._in_use.find(b"\0", first, first + self._slots_per_worker)
        if slot < 0:
            return None
        self._in_use[slot] = 1
        return slot

    def release(self, slot: int) -> None:
        """Let a slot be used again."""
        self._in_use[slot] = 0

    def array(self, slot: int, shape: Sequence[int]) -> ByteArray:
        """Return a slot's memory as an array; ValueError where the slot is too small."""
        size = int(np.prod(shape))
        if size > self._slot_bytes:
            raise ValueError(f"a clip of {size} bytes does not fit into a slot of {self._slot_bytes}")
        return np.ndarray(shape, np.uint8, self._pixels, slot * self._slot_bytes)

    def borrow(self, slot: int, shape: Sequence[int]) -> ByteArray:
        """Return a slot's memory as an array; when it and all views of it are gone, the slot is released."""
        array = self.array(slot, shape)
        weakref.finalize(array, self.release, slot).atexit = False
        return array
