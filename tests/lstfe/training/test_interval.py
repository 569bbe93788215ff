"""Means and rates against numbers worked out by hand."""

from __future__ import annotations

import time

import pytest
import torch

from lstfe.training.interval import Interval

CPU = torch.device("cpu")
FINE, SKIPPED = torch.tensor(True), torch.tensor(False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a clock that stands still until its only entry is changed, in seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_a_report_is_the_mean_over_the_updates_and_the_rate_over_the_time(clock: list[float]) -> None:
    interval = Interval(CPU)
    interval.add({"loss": torch.tensor(1.0, requires_grad=True)}, is_finite=FINE, num_images=10, waited=0.5)
    interval.add({"loss": torch.tensor(2.0)}, is_finite=FINE, num_images=14, waited=0.1)
    clock[0] += 4.0
    assert interval.report() == pytest.approx(
        {"loss": 1.5, "images_per_second": 6.0, "data_wait_fraction": 0.15, "step_ms": 1700.0}
    )


def test_restarting_forgets_what_came_before(clock: list[float]) -> None:
    interval = Interval(CPU)
    interval.add({"loss": torch.tensor(100.0)}, is_finite=FINE, num_images=1000, waited=3.0)
    clock[0] += 50.0
    interval.restart()
    interval.add({"loss": torch.tensor(1.0)}, is_finite=FINE, num_images=3, waited=0.0)
    clock[0] += 1.0
    expected = {"loss": 1.0, "images_per_second": 3.0, "data_wait_fraction": 0.0, "step_ms": 1000.0}
    assert interval.report() == expected


def test_skipped_updates_take_no_part_in_the_mean(clock: list[float]) -> None:
    interval = Interval(CPU)
    for loss, is_finite in ((1.0, FINE), (float("nan"), SKIPPED), (2.0, FINE)):
        interval.add({"loss": torch.tensor(loss)}, is_finite=is_finite, num_images=1, waited=0.0)
    clock[0] += 1.0
    assert interval.report()["loss"] == 1.5


def test_where_all_updates_were_skipped_there_is_no_mean(clock: list[float]) -> None:
    interval = Interval(CPU)
    interval.add({"loss": torch.tensor(float("nan"))}, is_finite=SKIPPED, num_images=4, waited=0.0)
    clock[0] += 2.0
    assert interval.report() == {"images_per_second": 2.0, "data_wait_fraction": 0.0, "step_ms": 2000.0}


def test_a_device_whose_rate_is_known_shows_how_much_of_it_is_used(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lstfe.training.interval.peak_flops", lambda device: 1e12)
    interval = Interval(CPU)
    for _ in range(2):
        interval.add({}, is_finite=FINE, num_images=1, waited=0.0, flops=10**11)
    clock[0] += 0.5
    assert interval.report()["mfu"] == pytest.approx(0.4)
