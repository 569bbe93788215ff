"""Whenever a training is killed: no torn checkpoint, no more lost than since the last, the same bits in the end.

The moments are drawn anew each time and are in the names of the tests, as fractions of the training.
`make faults` draws twenty of each kind.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lstfe.training.checkpoint import load_newest_checkpoint
from lstfe.training.stop import PREEMPTED

from .conftest import (
    HERE,
    ITERATIONS,
    Forge,
    assert_little_was_repeated,
    assert_no_checkpoint_is_torn,
    environment,
    kill,
    trace,
    wait_until,
)

pytestmark = pytest.mark.slow


def usually(number: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Set how many moments the normal suite tries."""

    def mark(test: Callable[..., None]) -> Callable[..., None]:
        test.usual_moments = number
        return test

    return mark


@usually(2)
def test_the_whole_group_killed_and_started_again_ends_with_the_same_bits(
    forge: Forge, undisturbed: tuple[bytes, float], tmp_path: Path, moment: float
) -> None:
    expected, duration = undisturbed
    pids = forge.start(tmp_path)
    wait_until(tmp_path, moment, duration)
    kill(*pids)
    forge.exit_codes()
    assert_no_checkpoint_is_torn(tmp_path)
    forge.start(tmp_path)
    assert forge.exit_codes() == [0, 0]
    assert (tmp_path / "weights.safetensors").read_bytes() == expected
    assert_little_was_repeated(tmp_path, faults=1)


@usually(1)
def test_a_preempted_training_saves_says_so_and_repeats_nothing(
    forge: Forge, undisturbed: tuple[bytes, float], tmp_path: Path, moment: float
) -> None:
    expected, duration = undisturbed
    pids = forge.start(tmp_path)
    wait_until(tmp_path, 0.05 + 0.75 * moment, duration)
    os.kill(random.choice(pids), signal.SIGTERM)
    assert forge.exit_codes() == [PREEMPTED] * 2
    saved = load_newest_checkpoint(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.iteration == trace(tmp_path)[-1] < ITERATIONS
    forge.start(tmp_path)
    assert forge.exit_codes() == [0, 0]
    assert trace(tmp_path) == list(range(1, ITERATIONS + 1))
    assert (tmp_path / "weights.safetensors").read_bytes() == expected


# -------------------------------------------------------------------------------------- under torchrun


def torchrun(arguments: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start the training in two processes, which torchrun may start again three times."""
    launcher = ["-m", "pipelines.launch", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    command = [sys.executable, *launcher, str(HERE / "worker.py"), *arguments, str(folder)]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, env=environment(), stdout=log, stderr=log)


def running(folder: Path) -> list[int]:
    """Return the processes that train, by rank."""
    return [int((folder / f"pid.{rank}").read_text()) for rank in range(2)]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@usually(1)
def test_a_rank_killed_in_mid_step_is_started_again_and_the_end_has_the_same_bits(
    arguments: list[str], undisturbed: tuple[bytes, float], tmp_path: Path, moment: float
) -> None:
    expected, duration = undisturbed
    agent = torchrun(arguments, tmp_path)
    wait_until(tmp_path, moment, duration)
    kill(random.choice(running(tmp_path)))
    assert_no_checkpoint_is_torn(tmp_path)
    assert agent.wait(120) == 0, (tmp_path / "log").read_text()
    assert (tmp_path / "weights.safetensors").read_bytes() == expected
    assert_little_was_repeated(tmp_path, faults=1)


@usually(1)
def test_processes_do_not_outlive_a_killed_agent_and_save_before_they_go(
    arguments: list[str], undisturbed: tuple[bytes, float], tmp_path: Path, moment: float
) -> None:
    _, duration = undisturbed
    agent = torchrun(arguments, tmp_path)
    wait_until(tmp_path, 0.05 + 0.6 * moment, duration)
    pids = running(tmp_path)
    agent.kill()
    agent.wait()
    end = time.monotonic() + 30
    while not all(map(is_gone, pids)):
        assert time.monotonic() < end, "processes outlive their agent"
        time.sleep(0.05)
    saved = load_newest_checkpoint(tmp_path / "checkpoints")
    assert saved is not None
    assert saved.iteration == trace(tmp_path)[-1] < ITERATIONS
