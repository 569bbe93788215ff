"""What a person sees of a training: a bar on a terminal, plain lines of the log elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)

# Shown first, because a narrow terminal cuts off the end of the line.
_FIRST = {
    "loss": "loss",
    "images_per_second": "images/s",
    "data_wait_fraction": "wait",
    "step_ms": "step ms",
    "gpu_memory_gb": "GPU GB",
    "mfu": "MFU",
}
_ONLY_IF_ANY = ("skipped_clips", "skipped_updates", "failed_checkpoints")


class Progress:
    """Show updates done, losses, images/s and the time left; shows nothing unless `enabled`."""

    def __init__(self, *, total: int, start: int, enabled: bool) -> None:
        self._total, self._start, self._started = total, start, time.monotonic()
        self._has_lines = enabled and not sys.stderr.isatty()
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=start,
            desc="train",
            dynamic_ncols=True,
            bar_format="{desc} {n_fmt}/{total_fmt} {bar:10} {elapsed} left {remaining}{postfix}",
            disable=not enabled or self._has_lines,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self) -> None:
        """Count one update."""
        self._bar.update()

    def show(self, metrics: dict[str, float], iteration: int) -> None:
        """Show the latest metrics."""
        shown = {new: metrics[name] for name, new in _FIRST.items() if name in metrics}
        hidden = {*_FIRST, *(name for name in _ONLY_IF_ANY if not metrics.get(name))}
        shown |= {name.removeprefix("loss_"): metrics[name] for name in metrics if name not in hidden}
        text = "  ".join(f"{name} {value:.3g}" for name, value in shown.items())
        self._bar.set_postfix_str(text)
        if self._has_lines:
            logger.info("update %d/%d  %s  left %s", iteration, self._total, text, self._time_left(iteration))

    def _time_left(self, iteration: int) -> str:
        seconds_per_update = (time.monotonic() - self._started) / max(1, iteration - self._start)
        return tqdm.format_interval(int(seconds_per_update * (self._total - iteration)))
