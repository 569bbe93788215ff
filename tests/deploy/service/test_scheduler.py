from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from deploy.service.scheduler import FairScheduler, LaneClosedError


@pytest.fixture
def scheduler() -> Iterator[FairScheduler]:
    """One worker."""
    scheduler = FairScheduler(1)
    yield scheduler
    scheduler.stop()


def hold(scheduler: FairScheduler) -> threading.Event:
    """Keep the worker busy until the event is set, and return when it is."""
    begun, go = threading.Event(), threading.Event()
    scheduler.open_lane().submit(lambda: (begun.set(), go.wait(30)))
    assert begun.wait(30)
    return go


def test_without_work_nothing_waits(scheduler: FairScheduler) -> None:
    assert scheduler.num_waiting == 0


def test_lanes_take_turns_however_much_one_has(scheduler: FairScheduler) -> None:
    done: list[str] = []
    go = hold(scheduler)
    busy, quiet, late = (scheduler.open_lane() for _ in range(3))
    futures = [busy.submit(lambda i=i: done.append(f"busy {i}")) for i in range(4)]  # type: ignore[misc]
    futures += [quiet.submit(lambda i=i: done.append(f"quiet {i}")) for i in range(2)]  # type: ignore[misc]
    futures.append(late.submit(lambda: done.append("late 0")))
    assert scheduler.num_waiting == 7
    go.set()
    for future in futures:
        future.result(timeout=30)
    assert done == ["busy 0", "quiet 0", "late 0", "busy 1", "quiet 1", "busy 2", "busy 3"]


def test_the_work_of_a_lane_is_never_done_twice_at_a_time() -> None:
    scheduler = FairScheduler(4)
    lanes = [scheduler.open_lane() for _ in range(3)]
    inside = [0] * len(lanes)
    most = [0] * len(lanes)
    orders: list[list[int]] = [[] for _ in lanes]

    def work(lane: int, number: int) -> None:
        inside[lane] += 1
        most[lane] = max(most[lane], inside[lane])
        time.sleep(0.001)
        orders[lane].append(number)
        inside[lane] -= 1

    futures = [
        lane.submit(lambda place=place, number=number: work(place, number))  # type: ignore[misc]
        for number in range(20)
        for place, lane in enumerate(lanes)
    ]
    for future in futures:
        future.result(timeout=30)
    assert most == [1, 1, 1]
    assert orders == [list(range(20))] * 3
    scheduler.stop()


def test_what_work_raises_belongs_to_its_future_alone(scheduler: FairScheduler) -> None:
    lane = scheduler.open_lane()
    failed, next_one = lane.submit(lambda: 1 // 0), lane.submit(lambda: "well")
    with pytest.raises(ZeroDivisionError):
        failed.result(timeout=30)
    assert next_one.result(timeout=30) == "well"


def test_a_closed_lane_cancels_what_waits_and_takes_nothing_more(scheduler: FairScheduler) -> None:
    go = hold(scheduler)
    lane, other = scheduler.open_lane(), scheduler.open_lane()
    waiting, of_other = lane.submit(lambda: None), other.submit(lambda: "done")
    lane.close()
    with pytest.raises(LaneClosedError):
        lane.submit(lambda: None)
    go.set()
    assert of_other.result(timeout=30) == "done"
    with pytest.raises(CancelledError):
        waiting.result(timeout=30)


def test_stopping_cancels_what_waits() -> None:
    scheduler = FairScheduler(1)
    go = hold(scheduler)
    waiting = scheduler.open_lane().submit(lambda: None)
    threading.Timer(0.05, go.set).start()
    scheduler.stop()
    assert waiting.cancelled()


def test_waiting_and_working_are_timed() -> None:
    seen: list[tuple[float, float]] = []
    scheduler = FairScheduler(1, observe=lambda waited, took: seen.append((waited, took)))
    lane = scheduler.open_lane()
    futures = [lane.submit(lambda: time.sleep(0.05)) for _ in range(2)]
    for future in futures:
        future.result(timeout=30)
    scheduler.stop()
    (first_wait, first_took), (second_wait, _) = seen
    assert first_took >= 0.05
    assert second_wait >= 0.05 > first_wait
