from __future__ import annotations

import os

import numpy as np
import pytest

from lstfe.data.clip_memory import ClipMemory


@pytest.fixture
def memory() -> ClipMemory:
    return ClipMemory(num_workers=2, slots_per_worker=2, slot_bytes=5000)


def test_without_a_free_slot_there_is_none(memory: ClipMemory) -> None:
    assert ClipMemory(num_workers=1, slots_per_worker=1, slot_bytes=1).claim(0) == 0
    slots = [memory.claim(0), memory.claim(0), memory.claim(0)]
    assert slots == [0, 1, None]


def test_each_loader_process_has_slots_of_its_own(memory: ClipMemory) -> None:
    assert [memory.claim(1), memory.claim(0), memory.claim(1)] == [2, 0, 3]


def test_a_released_slot_is_claimed_again(memory: ClipMemory) -> None:
    memory.claim(0)
    memory.claim(0)
    memory.release(0)
    assert memory.claim(0) == 0


def test_slots_do_not_overlap(memory: ClipMemory) -> None:
    arrays = [memory.array(slot, (10, 500)) for slot in range(4)]
    for value, array in enumerate(arrays, start=1):
        array[:] = value
    assert [set(array.ravel().tolist()) for array in arrays] == [{1}, {2}, {3}, {4}]


def test_a_clip_that_is_too_large_for_a_slot_is_refused(memory: ClipMemory) -> None:
    with pytest.raises(ValueError, match="a clip of 9000 bytes does not fit into a slot of"):
        memory.array(0, (9, 1000))


def test_a_borrowed_slot_is_released_with_the_last_view_of_it(memory: ClipMemory) -> None:
    slot = memory.claim(0)
    assert slot is not None
    array = memory.borrow(slot, (2, 3))
    view = array[1:].T
    del array
    assert memory.claim(0) == 1
    del view
    assert memory.claim(0) == 0


def test_what_a_forked_process_writes_is_read_here(memory: ClipMemory) -> None:
    child = os.fork()
    if child == 0:
        slot = memory.claim(1)
        memory.array(slot, (4,))[:] = (1, 2, 3, 4)
        os._exit(0 if slot == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(memory.array(2, (4,)), (1, 2, 3, 4))
    assert memory.claim(1) == 3
