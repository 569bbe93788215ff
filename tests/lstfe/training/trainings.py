"""What tests of whole trainings share."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lstfe.config import Config
from lstfe.training.checkpoint import checkpoint_path
from lstfe.training.distributed import LAUNCHER_ENVIRONMENT
from lstfe.training.interval import SPEEDS
from lstfe.training.loop import TrainedModel, train

WORKER = Path(__file__).with_name("worker.py")
FORKED = Path(__file__).parents[2] / "forked.py"


def with_train(config: Config, **changes: object) -> Config:
    return replace(config, train=replace(config.train, **changes))


def train_quietly(config: Config, prepared_dir: Path, checkpoint_dir: Path) -> TrainedModel:
    return train(
        config,
        prepared_dir=prepared_dir,
        checkpoint_dir=checkpoint_dir,
        log=lambda metrics, iteration: None,
        validate=None,
        progress=False,
    )


def losses_of(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return what does not depend on the clock."""
    return [{name: value for name, value in entry.items() if name not in SPEEDS} for entry in history]


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def stop_after(whole: Path, stopped: Path, iteration: int) -> None:
    """Copy the checkpoints as a training that got no further than `iteration` would have left them."""
    shutil.copytree(whole, stopped)
    for path in stopped.glob("checkpoint_*.pt"):
        if path > checkpoint_path(stopped, iteration):
            path.unlink()


def worker_environment() -> dict[str, str]:
    """Return the environment of a training process: this repository's code, one thread, no GPU."""
    root = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **LAUNCHER_ENVIRONMENT, **threads, "PYTHONPATH": path}
