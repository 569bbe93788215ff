"""What torchrun says is understood or refused; one process needs none of it. Many processes train as one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed as dist

from lstfe.config import Config
from lstfe.params import save_config
from lstfe.training import distributed
from lstfe.training.checkpoint import load_newest_checkpoint
from lstfe.training.determinism import fixed_threads
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
from lstfe.training.loop import TrainedModel

from .trainings import (
    FORKED,
    WORKER,
    losses_of,
    stop_after,
    train_quietly,
    with_train,
    worker_environment,
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


# ------------------------------------------------------------------------------------ many processes


@pytest.fixture(scope="module")
def by_processes(
    tiny_config: Config, tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, TrainedModel, Path]:
    """Train 20 updates of 4 clips in one process, and in folders `2` and `4` in as many."""
    # SGD: Adam divides by the size of the gradient, so where that is rounding alone, it steps at full length.
    config = with_train(
        tiny_config, iterations=20, batch_size=4, still_iterations=8, optimizer="sgd", lr=1e-2, amp="off"
    )
    config = with_train(config, lr_batch_size=4, ema_decay=0.9)
    folder = tmp_path_factory.mktemp("processes")
    # One thread each: sums over threads round differently, and what is next to a threshold then falls elsewhere.
    with fixed_threads(1):
        expected = train_quietly(config, tiny_prepared, folder / "one")
        save_config(config, folder / "config.yaml")
        (folder / "2").mkdir()
        (folder / "4").mkdir()
        each = folder / "{number}"
        command = [sys.executable, FORKED, WORKER, "2,4"]
        command += [folder / "config.yaml", tiny_prepared, each / "checkpoints", each]
        subprocess.run(list(map(str, command)), env=worker_environment(), check=True, timeout=240)
    return config, expected, folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 4])
def test_many_processes_give_the_losses_and_weights_of_one_with_the_same_global_batch(
    by_processes: tuple[Config, TrainedModel, Path], number: int
) -> None:
    _, expected, folder = by_processes
    history = json.loads((folder / str(number) / "history.json").read_text())
    assert [line["iteration"] for line in history] == list(range(1, 21))
    for line, reference in zip(losses_of(history), losses_of(expected.history), strict=True):
        assert line == pytest.approx(reference, rel=0, abs=1e-4)  # DDP adds the clips in another order
    weights = load_file(folder / str(number) / "weights.safetensors")
    for name, reference in expected.model.state_dict().items():
        torch.testing.assert_close(weights[name], reference, rtol=1e-3, atol=1e-4, msg=name)
    checkpoint = load_newest_checkpoint(folder / str(number) / "checkpoints")
    assert checkpoint is not None
    assert len(checkpoint.rng) == number


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(
    by_processes: tuple[Config, TrainedModel, Path], tiny_prepared: Path, tmp_path: Path
) -> None:
    config, expected, folder = by_processes
    stop_after(folder / "4" / "checkpoints", tmp_path / "checkpoints", 18)
    with fixed_threads(1):
        trained = train_quietly(config, tiny_prepared, tmp_path / "checkpoints")
    for line, reference in zip(losses_of(trained.history), losses_of(expected.history), strict=True):
        assert line == pytest.approx(reference, rel=0, abs=1e-4)
