"""Batches in order; the loader's processes outlive signals to all, and nothing of them outlives the block."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from lstfe.training.distributed import World
from lstfe.training.feed import Feed, shielded
from lstfe.training.stop import StopRequest
from lstfe.types import Clip, ClipLayout, Targets


def batch(number: int) -> list[Clip]:
    targets = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    return [Clip(torch.zeros(1, 3, 2, 2), ClipLayout(), targets, "video", (number,))]


def from_a_process(closed: list[str]) -> Iterator[list[Clip]]:
    """Yield batches as a loader does, with a process that runs for as long as the generator is open."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
    process.start()
    try:
        for number in range(3):
            yield batch(number)
    finally:
        closed.append("closed")


def test_an_empty_feed_says_that_there_is_nothing() -> None:
    with Feed(iter(())) as feed, pytest.raises(StopIteration):
        feed.next()


def test_batches_come_in_order_with_the_time_that_each_took() -> None:
    def slow() -> Iterator[list[Clip]]:
        for number in range(2):
            time.sleep(0.05)
            yield batch(number)

    with Feed(slow()) as feed:
        for number in range(2):
            clips, waited = feed.next()
            assert clips[0].frame_indices == (number,)
            assert 0.04 < waited < 5


def test_a_signal_to_all_processes_leaves_the_loaders_alone_until_the_block_ends() -> None:
    closed: list[str] = []
    before = set(multiprocessing.active_children())
    with Feed(from_a_process(closed)) as feed:
        feed.next()
        (process,) = set(multiprocessing.active_children()) - before
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        feed.next()
        assert process.is_alive()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert closed == ["closed"]


def test_a_process_started_behind_the_shield_outlives_a_polite_signal() -> None:
    with shielded():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    child.terminate()
    time.sleep(0.2)
    assert child.poll() is None
    child.kill()
    child.wait()


def test_a_signal_behind_the_shield_arrives_after_it() -> None:
    with StopRequest(World()) as stop:
        with shielded():
            signal.raise_signal(signal.SIGTERM)  # to this thread: others of this process are not shielded
            assert stop.signal == 0
        assert stop.signal == signal.SIGTERM
