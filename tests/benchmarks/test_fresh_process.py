"""Work in a process of its own: what it returns, what it took, and what comes of one that dies."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from benchmarks.fresh_process import in_fresh_process, measured


def test_the_work_runs_in_another_process_each_time() -> None:
    assert len({os.getpid(), in_fresh_process(os.getpid), in_fresh_process(os.getpid)}) == 3


def test_a_process_that_is_killed_ends_the_benchmark() -> None:
    with pytest.raises(BrokenProcessPool):
        in_fresh_process(signal.raise_signal, signal.SIGKILL)


def test_sleep_takes_time_and_hardly_any_of_the_processor() -> None:
    result, spent = measured(time.sleep, 0.2)
    assert result is None
    assert spent.seconds >= 0.2
    assert spent.processor_seconds < 0.1


def test_memory_counts_for_the_process_that_takes_it() -> None:
    _, little = in_fresh_process(measured, bytes, 0)
    _, much = in_fresh_process(measured, bytes.__mul__, b"x", 200 * 2**20)
    assert 100 < much.peak_mib - little.peak_mib < 300
