"""Means and rates against numbers worked out by hand."""

from __future__ import annotations

import time

import pytest
import torch

from lstfe.training.interval import Interval


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock that stands still until its only entry is changed, in seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_report_is_the_mean_over_the_updates_and_the_rate_over_the_time(clock: list[float]) -> None:
    interval = Interval()
    interval.add({"loss": torch.tensor(1.0, requires_grad=True)}, num_images=10, waited=0.5)
    interval.add({"loss": torch.tensor(2.0)}, num_images=14, waited=0.1)
    clock[0] += 4.0
    assert interval.report() == pytest.approx(
        {"loss": 1.5, "images_per_second": 6.0, "data_wait_fraction": 0.15}
    )


def test_restarting_forgets_what_came_before(clock: list[float]) -> None:
    interval = Interval()
    interval.add({"loss": torch.tensor(100.0)}, num_images=1000, waited=3.0)
    clock[0] += 50.0
    interval.restart()
    interval.add({"loss": torch.tensor(1.0)}, num_images=3, waited=0.0)
    clock[0] += 1.0
    assert interval.report() == {"loss": 1.0, "images_per_second": 3.0, "data_wait_fraction": 0.0}


def test_one_loss_that_is_not_a_number_shows_in_the_mean(clock: list[float]) -> None:
    interval = Interval()
    for loss in (1.0, float("nan"), 1.0):
        interval.add({"loss": torch.tensor(loss)}, num_images=1, waited=0.0)
    clock[0] += 1.0
    assert interval.report()["loss"] != interval.report()["loss"]
