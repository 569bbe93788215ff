"""SIGTERM (preemption) and Ctrl-C: finish the update, save, and leave with an exit code that says so."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import distributed as dist

from lstfe.training.distributed import World

logger = logging.getLogger(__name__)

PREEMPTED = 79
"""Exit code of a training that was told to stop (SIGTERM) and saved; just past those of sysexits.h."""
GRACE_SECONDS = 100.0
"""A process that has not stopped that long after it was told to ends at once, with code 128 + 15 as by the signal."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStopped(SystemExit):
    """The training was preempted and saved; the same command goes on with it."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED)


class ValidationInterrupted(BaseException):
    """A signal came while rank 0 validated; no `except Exception` on the way may swallow it."""


class StopRequest:
    """Notes the signals while the block lasts; the processes agree after which update they stop.

    A signal during an update changes nothing but a number: the update ends as it would have ended.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.signal = 0
        """The first signal that this process got; 0 as long as there was none."""
        self._pid = os.getpid()
        self._is_validating = False
        self._previous: dict[signal.Signals, Any] = {}
        self._agreement: tuple[dist.Work, torch.Tensor] | None = None
        self._deadline = threading.Timer(GRACE_SECONDS, os._exit, [128 + signal.SIGTERM])
        self._deadline.daemon = True

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # others may not set handlers
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._deadline.cancel()

    def agreed_signal(self) -> int:
        """Return the signal that all processes stop for after this update, 0 for none; call it once an update.

        What any process knew at the previous call counts, so that nobody waits for an answer.
        """
        if self._world.size == 1:
            return self.signal
        agreed = 0
        if self._agreement is not None:
            work, numbers = self._agreement
            work.wait()
            agreed = int(numbers)
        numbers = torch.tensor(self.signal)
        self._agreement = dist.all_reduce(numbers, dist.ReduceOp.MAX, async_op=True), numbers
        return agreed

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal raise ValidationInterrupted within the block: validations may take minutes."""
        if self.signal:
            raise ValidationInterrupted
        self._is_validating = True
        try:
            yield
        finally:
            self._is_validating = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a loader process: it ends with the training
            return
        if number == signal.SIGINT and self.signal:
            raise KeyboardInterrupt  # asked twice
        if not self.signal:
            self.signal = number
            self._deadline.start()
            logger.warning("told to stop (%s): saving after this update", signal.Signals(number).name)
        if self._is_validating:
            self._is_validating = False
            raise ValidationInterrupted


def stop_for(number: int) -> None:
    """End the training after it was saved: KeyboardInterrupt for Ctrl-C, TrainingStopped for SIGTERM."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise TrainingStopped
