"""Work in a process of its own, so that memory and warm starts of whatever ran before do not count."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from deploy.peak_memory import peak_mib

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a piece of work took."""

    seconds: float
    processor_seconds: float
    peak_mib: float
    """Largest resident memory that the process ever had."""


def in_fresh_process(work: Callable[..., _Result], *arguments: object) -> _Result:
    """Run a function of a module in a new interpreter and return its result; a killed process raises."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measured(work: Callable[..., _Result], *arguments: object) -> tuple[_Result, Spent]:
    """Run a function in this process; return its result and what it took."""
    began, processor_began = time.perf_counter(), time.process_time()
    result = work(*arguments)
    return result, Spent(time.perf_counter() - began, time.process_time() - processor_began, peak_mib())
