"""A training of a few seconds that can be killed, its undisturbed end, and how often it is killed here."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from torch import Tensor

from lstfe.config import Config, ModelConfig, SamplingConfig, TrainConfig
from lstfe.params import save_config
from lstfe.training.checkpoint import load_checkpoint
from lstfe.training.distributed import LAUNCHER_ENVIRONMENT
from lstfe.training.loop import train

HERE = Path(__file__).parent
CHECKPOINT_EVERY = 3
ITERATIONS = 24


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Draw the moments: few in the normal suite, LSTFE_FAULTS of each kind where it is set (make faults)."""
    if "moment" in metafunc.fixturenames:
        number = int(os.environ.get("LSTFE_FAULTS", getattr(metafunc.function, "usual_moments", 1)))
        # Processes that share a run of tests must draw the same moments.
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", time.time_ns())
        draw = random.Random(os.environ.get("LSTFE_FAULTS_SEED", run))
        # In the name of the test, so that a failure says when it was.
        metafunc.parametrize("moment", [round(draw.random(), 4) for _ in range(number)])


@pytest.fixture(autouse=True, scope="session")
def _all_on_the_cpu(on_the_cpu: None) -> None:
    """Let every test of this folder run there."""


@pytest.fixture(scope="session")
def config(tiny: Callable[..., ModelConfig]) -> Config:
    """24 updates of two clips, a checkpoint every third, a line of metrics each."""
    return Config(
        model=tiny(),
        sampling=SamplingConfig(short_term_range=3, num_short_term=2, num_candidates=2),
        train=TrainConfig(
            iterations=ITERATIONS,
            batch_size=2,
            optimizer="adamw",
            schedule="one_cycle",
            lr_batch_size=2,
            warmup_iterations=2,
            still_iterations=8,
            max_gradient_norm=10.0,
            ema_decay=0.9,
            num_workers=1,
            log_every=1,
            checkpoint_every=CHECKPOINT_EVERY,
            validation_frames=0,
        ),
    )


@dataclass
class Forge:
    """Starts trainings of several processes; their wait statuses come when they have all ended."""

    process: subprocess.Popen[str]
    arguments: list[str]

    def start(self, folder: Path, *, number: int = 2) -> list[int]:
        """Return the ids of the processes."""
        folder.mkdir(exist_ok=True)
        assert self.process.stdin is not None
        self.process.stdin.write(
            json.dumps({"number": number, "arguments": [*self.arguments, str(folder)]}) + "\n"
        )
        self.process.stdin.flush()
        return list(self._answer())

    def exit_codes(self) -> list[int]:
        """Wait for the end of all processes."""
        return [os.waitstatus_to_exitcode(status) for status in self._answer()]

    def _answer(self) -> list[int]:
        assert self.process.stdout is not None
        return list(json.loads(self.process.stdout.readline()))


@pytest.fixture(scope="session")
def arguments(config: Config, tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What worker.py needs, but for the folder."""
    path = tmp_path_factory.mktemp("faults") / "config.yaml"
    save_config(config, path)
    return [str(path), str(tiny_prepared)]


@pytest.fixture(scope="session")
def forge(arguments: list[str]) -> Iterator[Forge]:
    """Processes on request, without the seconds that loading takes."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "forge.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        yield Forge(process, arguments)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="session")
def undisturbed(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, float]:
    """Return the weights of an undisturbed training in two processes, as a file, and the seconds that it trained."""
    folder = tmp_path_factory.mktemp("undisturbed")
    forge.start(folder)
    wait_for(folder / "trace")
    started = time.monotonic()
    assert forge.exit_codes() == [0, 0]
    assert trace(folder) == list(range(1, ITERATIONS + 1))
    return (folder / "weights.safetensors").read_bytes(), time.monotonic() - started


@pytest.fixture(scope="session")
def weights_of_one_process(
    config: Config, tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Tensor]:
    """The weights of an undisturbed training in this process."""
    trained = train(
        config,
        prepared_dir=tiny_prepared,
        checkpoint_dir=tmp_path_factory.mktemp("one_process"),
        log=lambda *_: None,
        validate=None,
        progress=False,
    )
    return trained.model.state_dict()


def environment() -> dict[str, str]:
    """Return the environment of a training process: this repository's code, one thread, no GPU."""
    root = str(HERE.parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {
        **os.environ,
        **LAUNCHER_ENVIRONMENT,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": path,
    }


def wait_for(path: Path, seconds: float = 120) -> None:
    """Wait until there is such a file."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear within {seconds} seconds"
        time.sleep(0.005)


def wait_until(folder: Path, moment: float, duration: float) -> None:
    """Wait until that fraction of the training's updates is done, and for a while within an update."""
    update, part = divmod(moment * (ITERATIONS - 1), 1)
    for rank in range(2):
        wait_for(folder / f"pid.{rank}")
    end = time.monotonic() + 120
    while len(trace(folder)) < update:
        assert time.monotonic() < end, "the training does not go on"
        time.sleep(0.002)
    time.sleep(part * duration / ITERATIONS)


def trace(folder: Path) -> list[int]:
    """Return the updates as they were done, repeated ones again."""
    path = folder / "trace"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill(*pids: int) -> None:
    """End processes without a chance to clean up; those that have ended already do not mind."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def assert_no_checkpoint_is_torn(folder: Path) -> None:
    """Read all checkpoints that bear a final name."""
    for path in sorted((folder / "checkpoints").glob("checkpoint_*.pt")):
        with suppress(FileNotFoundError):  # a surviving process may just have removed the oldest
            load_checkpoint(path)


def assert_little_was_repeated(folder: Path, *, faults: int) -> None:
    """Each restart goes back by less than the distance of two checkpoints, and one update that was not noted."""
    done = trace(folder)
    assert sorted(set(done)) == list(range(1, ITERATIONS + 1))
    steps_back = [before + 1 - after for before, after in pairwise(done) if after != before + 1]
    assert len(steps_back) <= faults
    assert all(0 < back <= CHECKPOINT_EVERY for back in steps_back), done
