"""A disk that fills up in mid training costs checkpoints and nothing else; the metrics wait, and say so."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor

from lstfe.config import Config
from lstfe.training.checkpoint import load_checkpoint
from lstfe.training.loop import train
from pipelines.journal import Journal, read_journal

from .conftest import CHECKPOINT_EVERY, ITERATIONS

FULL_FROM, FULL_UNTIL = 7, 16
LOST = [i for i in range(FULL_FROM, FULL_UNTIL) if i % CHECKPOINT_EVERY == 0]

pytestmark = pytest.mark.slow


class Tmpfs:
    """A small file system of its own, filled by one large file."""

    def __init__(self, folder: Path) -> None:
        self.ballast = folder / "ballast"

    def fill(self) -> None:
        with self.ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                return

    def free(self) -> None:
        self.ballast.unlink()


class SizeLimit:
    """A limit on the size of files, which makes writing fail with another error but at the same places."""

    def __init__(self, folder: Path) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, self._before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Mount 16 MiB of memory, which only root may; skips the test elsewhere."""
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system cannot be mounted here; the same with a size limit is tested in its place")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(params=[Tmpfs, SizeLimit], ids=["tmpfs", "size limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tmpfs | SizeLimit]:
    """What can be filled and freed; it holds `tmp_path / "state"`."""
    folder = tmp_path / "state"
    folder.mkdir()
    if request.param is SizeLimit:
        limit = SizeLimit(folder)
        yield limit
        limit.free()
        return
    with mounted(folder):
        yield Tmpfs(folder)


def test_a_full_disk_costs_checkpoints_and_nothing_else(
    disk: Tmpfs | SizeLimit,
    config: Config,
    weights_of_one_process: dict[str, Tensor],
    tiny_prepared: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    state, kept = tmp_path / "state", dict[int, list[int]]()
    journal = Journal(state / "history.jsonl")

    def watch(metrics: dict[str, float], iteration: int) -> None:
        kept[iteration] = [load_checkpoint(path).iteration for path in sorted(state.glob("checkpoint_*.pt"))]
        if iteration == FULL_FROM:
            disk.fill()
        if iteration == FULL_UNTIL:
            disk.free()
        journal.append(metrics, iteration)

    with caplog.at_level(logging.WARNING):
        found = train(
            config,
            prepared_dir=tiny_prepared,
            checkpoint_dir=state,
            log=watch,
            validate=None,
            progress=False,
        )

    weights = found.model.state_dict()
    assert [name for name, tensor in weights_of_one_process.items() if not tensor.equal(weights[name])] == []
    assert kept[FULL_UNTIL] == [3, 6], "sound, and as old as the disk allows"
    assert kept[ITERATIONS] == [18, 21]
    assert found.history[-1]["failed_checkpoints"] == len(LOST) == 3
    warnings = [message for message in caplog.messages if "this checkpoint is not written" in message]
    assert len(warnings) == 3
    assert [entry["iteration"] for entry in read_journal(journal.path)] == list(range(1, ITERATIONS + 1))
    assert sum("metrics wait in memory" in message for message in caplog.messages) == 1
