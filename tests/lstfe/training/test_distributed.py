"""What torchrun says is understood or refused; one process needs none of it. Two processes: test_loop.py."""

from __future__ import annotations

import os
import signal
import sys

import pytest
import torch
from torch import distributed as dist

from lstfe.training import distributed
from lstfe.training.distributed import (
    LaunchError,
    World,
    broadcast_from_main,
    current_world,
    die_with_parent,
    gather_from_all,
    joined_world,
    mean_over_processes,
)


def test_without_torchrun_there_is_one_process() -> None:
    assert current_world({}) == World(rank=0, size=1, local_rank=0)
    assert current_world({}).is_main


def test_torchruns_variables_are_read() -> None:
    world = current_world({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    assert world == World(rank=5, size=8, local_rank=1)
    assert not world.is_main


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "0"},
        {"WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"RANK": "one", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
    ],
)
def test_contradictory_variables_are_refused_with_what_was_found(environment: dict[str, str]) -> None:
    with pytest.raises(LaunchError) as raised:
        current_world(environment)
    assert str(environment) in str(raised.value)


def test_one_process_joins_nobody_and_keeps_its_values() -> None:
    with joined_world() as world:
        assert world.size == 1
        assert not dist.is_initialized()
        assert mean_over_processes({}) == {}
        assert mean_over_processes({"loss": torch.tensor(0.25, requires_grad=True)}) == {"loss": 0.25}
        assert gather_from_all("a") == ["a"]
        assert broadcast_from_main([1, 2]) == [1, 2]


def test_without_a_gpu_the_device_is_the_cpu() -> None:
    assert World(rank=3, size=4, local_rank=3).device == torch.device("cpu")


def test_more_processes_than_gpus_are_refused_with_the_number_that_would_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(distributed, "current_world", lambda: World(rank=1, size=2, local_rank=1))
    with pytest.raises(LaunchError, match="--nproc-per-node 1"), joined_world():
        pass


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux signals a parent's death")
def test_a_worker_dies_when_its_parent_is_killed() -> None:
    reading, writing = os.pipe()  # only the worker keeps the writing end: its death is the end of the file
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            die_with_parent()
            os.write(writing, b"ready")
        else:
            os.close(writing)
        while True:
            signal.pause()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read(5) == b"ready"
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        assert pipe.read() == b""
