"""Means over the updates between two lines of metrics, without waiting for the device in between."""

from __future__ import annotations

import time

from torch import Tensor

from lstfe.training.distributed import mean_over_processes


class Interval:
    """Sums since the last report: losses stay on their device until `report` reads them."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything and start the clock."""
        self._sums: dict[str, Tensor] = {}
        self._num_updates = self._num_images = 0
        self._waited = 0.0
        self._started = time.perf_counter()

    def add(self, losses: dict[str, Tensor], *, num_images: int, waited: float) -> None:
        """Count one update: its losses, its images over all processes, and the seconds it waited for data."""
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, 0) + loss.detach()
        self._num_updates += 1
        self._num_images += num_images
        self._waited += waited

    def report(self) -> dict[str, float]:
        """Return each loss's mean over updates and processes, images_per_second and data_wait_fraction."""
        means = mean_over_processes({name: total / self._num_updates for name, total in self._sums.items()})
        seconds = time.perf_counter() - self._started  # after the means: reading them waits for the device
        return means | {
            "images_per_second": self._num_images / seconds,
            "data_wait_fraction": self._waited / seconds,
        }
