"""Metrics on local disk."""

from __future__ import annotations

import logging
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.journal import Journal, read_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "history.jsonl"


def test_a_new_journal_is_empty(path: Path) -> None:
    assert Journal(path).undelivered() == []
    assert read_journal(path) == []


def test_each_line_is_on_disk_at_once(path: Path) -> None:
    journal = Journal(path)
    journal.append({"loss": 2.0}, 10)
    journal.append({"loss": 1.0, "lr": 0.1}, 20)

    first, second = read_journal(path)

    assert {"iteration": 10, "loss": 2.0}.items() <= first.items()
    assert {"iteration": 20, "loss": 1.0, "lr": 0.1}.items() <= second.items()


def test_updates_repeated_after_a_kill_are_not_written_twice(path: Path) -> None:
    before = Journal(path)
    for iteration in (10, 20):
        before.append({"loss": 1.0}, iteration)

    after = Journal(path)
    after.append({"loss": 1.0}, 20)
    after.append({"val.AP50": 0.5}, 20)
    after.append({"loss": 0.5}, 30)

    lines = [(entry["iteration"], "loss" in entry) for entry in read_journal(path)]
    assert lines == [(10, True), (20, True), (20, False), (30, True)]


def test_a_line_cut_off_by_a_kill_is_dropped_and_can_be_written_again(path: Path) -> None:
    Journal(path).append({"loss": 1.0}, 10)
    with path.open("a") as file:
        file.write('{"iteration": 20, "lo')

    journal = Journal(path)
    journal.append({"loss": 0.9}, 20)

    assert [entry["iteration"] for entry in read_journal(path)] == [10, 20]


def test_what_was_delivered_is_remembered_by_the_next_process(path: Path) -> None:
    journal = Journal(path)
    journal.append({"loss": 1.0}, 10)
    journal.mark_delivered(1)
    journal.append({"loss": 0.9}, 20)

    assert [entry["iteration"] for entry in Journal(path).undelivered()] == [20]


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Return what limits the size that files may grow to, which is as good as a full disk; undone in the end."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size if size >= 0 else before[0], before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 20])
def test_a_full_disk_makes_metrics_wait_and_tears_no_line(
    path: Path, limit_files: Callable[[int], None], caplog: pytest.LogCaptureFixture, room: int
) -> None:
    journal = Journal(path)
    journal.append({"loss": 1.0}, 1)
    limit_files(path.stat().st_size + room)
    with caplog.at_level(logging.WARNING):
        journal.append({"loss": 2.0}, 2)
        journal.append({"loss": 3.0}, 3)
        journal.mark_delivered(1)
    assert [entry["loss"] for entry in read_journal(path)] == [1.0]
    assert [entry["loss"] for entry in journal.undelivered()] == [2.0, 3.0]
    (message,) = caplog.messages
    assert str(path) in message
    assert "wait in memory" in message

    limit_files(-1)
    journal.append({"loss": 4.0}, 4)
    assert [entry["loss"] for entry in read_journal(path)] == [1.0, 2.0, 3.0, 4.0]


def test_what_waited_is_written_with_the_next_delivery(
    path: Path, limit_files: Callable[[int], None]
) -> None:
    journal = Journal(path)
    limit_files(0)
    journal.append({"loss": 2.0}, 2)
    limit_files(-1)
    journal.undelivered()
    assert [entry["loss"] for entry in read_journal(path)] == [2.0]
