"""Means over the updates between two lines of metrics, without waiting for the device in between."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from lstfe.training.distributed import mean_over_processes
from lstfe.training.speed import gpu_memory_gb, peak_flops

SPEEDS = ("images_per_second", "data_wait_fraction", "step_ms", "gpu_memory_gb", "mfu")
"""Metrics that tell of the machine, and differ from one run to the next."""


class Interval:
    """Sums since the last report: losses stay on their device until `report` reads them."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._peak = device, peak_flops(device)
        self.restart()

    def restart(self) -> None:
        """Forget everything and start the clock."""
        self._sums: dict[str, Tensor] = {}
        self._num_finite: Tensor | int = 0
        self._num_updates = self._num_images = self._flops = 0
        self._waited = 0.0
        self._started = time.perf_counter()

    def add(
        self,
        losses: dict[str, Tensor],
        *,
        is_finite: Tensor,
        num_images: int,
        waited: float,
        flops: int | None = None,
    ) -> None:
        """Count one update: its losses if it is finite, its images over all processes, the seconds it waited for data.

        `flops`: operations of this process, where they are known.
        """
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + torch.where(is_finite, loss.detach(), 0)
        self._num_finite = self._num_finite + is_finite
        self._num_updates += 1
        self._num_images += num_images
        self._waited += waited
        self._flops += flops or 0

    def report(self) -> dict[str, float]:
        """Return each loss's mean over finite updates and processes (none where all were skipped), and the speeds.

        `step_ms` is the time of an update without its wait for data, `mfu` the share of the device's stated rate.
        """
        means = mean_over_processes({name: total / self._num_finite for name, total in self._sums.items()})
        if not self._num_finite:
            means = {}
        seconds = time.perf_counter() - self._started  # after the means: reading them waits for the device
        memory = gpu_memory_gb(self._device)
        return (
            means
            | {
                "images_per_second": self._num_images / seconds,
                "data_wait_fraction": self._waited / seconds,
                "step_ms": 1000 * (seconds - self._waited) / self._num_updates,
            }
            | ({} if memory is None else {"gpu_memory_gb": memory})
            | ({} if self._peak is None else {"mfu": self._flops / seconds / self._peak})
        )
