"""The loader as the loop sees it: batches, how long each was waited for, and processes that no signal takes away."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import TracebackType

from lstfe.types import Clip

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Feed:
    """Batches of clips; the loader's processes end with the block.

    Schedulers and terminals send their signals to all processes of a job. Loader processes that died of one would
    take the training along before it has saved, so they are started with these signals blocked.
    """

    def __init__(self, batches: Iterator[list[Clip]]) -> None:
        self._batches = batches
        self._processes: list[BaseProcess] = []

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        for process in self._processes:
            # What is left hears nothing weaker, and would be waited for when this process ends.
            if process.is_alive():
                process.kill()

    def next(self) -> tuple[list[Clip], float]:
        """Return the next batch and the seconds that it was waited for."""
        started = time.perf_counter()
        if self._processes:
            clips = next(self._batches)
        else:
            before = set(multiprocessing.active_children())
            with shielded():
                clips = next(self._batches)
            self._processes = [child for child in multiprocessing.active_children() if child not in before]
        return clips, time.perf_counter() - started


@contextmanager
def shielded() -> Iterator[None]:
    """Hold the signals that stop a training back within the block; processes started in it never see them."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
