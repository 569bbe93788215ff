"""Where the plugin's operators on boxes run, and how they are timed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu import Clock, current_stream
from deploy.plugin.calls import PreparedCall

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BoxBench:
    """A library and its device."""

    library: ctypes.CDLL
    device: torch.device
    replayed: Clock
    """Of work that waits for nothing, without the cost of launching it."""
    launched: Clock
    """Of one call from Python, all it waits for included."""

    def run(self, call: PreparedCall) -> None:
        """Run in torch's current stream."""
        call.run(current_stream(self.device))


def ratio(theirs: Row, ours: Row) -> float | None:
    """Return how many times as long as ours theirs takes, both launched from Python; None where nothing was timed."""
    us, own = theirs["us launched"], ours["us launched"]
    return None if us is None or own is None else us / own
