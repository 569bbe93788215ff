"""One process or many."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

from lstfe.errors import UserError
from pipelines.launch import launch_processes, micro_batch, processes_to_detect, processes_to_train


class _BecameAnother(Exception):
    """Stands for the end of this process."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    seen: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, command: list[str], environment: dict[str, str]) -> NoReturn:
        seen.append((command, environment))
        raise _BecameAnother

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.delenv("RANK", raising=False)
    return seen


@pytest.mark.parametrize("number", ["1"])
def test_one_process_needs_no_launcher(
    became: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setenv("LSTFE_NPROC", number)

    launch_processes("pipelines.train", lambda: 4)

    assert became == []


def test_several_processes_are_started_by_torchrun_which_may_restart_them(
    became: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSTFE_NPROC", "2")

    with pytest.raises(_BecameAnother):
        launch_processes("pipelines.train", lambda: 4)

    command, environment = became[0]
    assert command[1:3] == ["-m", "pipelines.launch"]
    assert {"--standalone", "--nproc-per-node=2", "--max-restarts=3"} <= set(command)
    assert command[-2:] == ["-m", "pipelines.train"]
    assert environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
    assert "OMP_NUM_THREADS" in environment
    assert environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "60"


@pytest.mark.parametrize(
    ("gpus", "batch_size", "expected"),
    [(0, 4, None), (1, 4, None), (4, 4, 4), (8, 4, 4), (3, 4, 2), (8, 12, 6), (2, 1, None)],
)
def test_without_a_number_each_visible_gpu_gets_a_process_as_far_as_the_batch_can_be_shared(
    became: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gpus: int,
    batch_size: int,
    expected: int | None,
) -> None:
    monkeypatch.setattr("lstfe.training.distributed.num_visible_gpus", lambda: gpus)

    with contextlib.suppress(_BecameAnother):
        launch_processes("pipelines.train", lambda: processes_to_train(batch_size))

    found = [argument for command, _ in became for argument in command if "nproc" in argument]
    assert found == ([] if expected is None else [f"--nproc-per-node={expected}"])
    assert bool(caplog.messages) == (gpus > (expected or 1))


@pytest.mark.parametrize(
    ("gpus", "cores", "num_threads", "num_videos", "num_frames", "expected"),
    [
        (0, 1, 1, 8, 10_000, 1),
        (0, 2, 1, 8, 960, 2),
        (0, 16, 4, 8, 10_000, 4),
        (0, 64, 1, 100, 100_000, 8),
        (0, 8, 1, 3, 10_000, 3),
        (0, 8, 1, 8, 960, 3),
        (0, 8, 1, 8, 36, 1),
        (0, 1, 4, 8, 960, 1),
        (4, 64, 1, 100, 100_000, 4),
    ],
)
def test_a_split_is_detected_by_as_many_processes_as_have_something_to_do(
    monkeypatch: pytest.MonkeyPatch,
    gpus: int,
    cores: int,
    num_threads: int,
    num_videos: int,
    num_frames: int,
    expected: int,
) -> None:
    monkeypatch.setattr("lstfe.training.distributed.num_visible_gpus", lambda: gpus)
    monkeypatch.setattr("pipelines.launch.os.cpu_count", lambda: cores)
    monkeypatch.setattr("pipelines.launch.os.sched_getaffinity", lambda _: set(range(cores)), raising=False)

    assert processes_to_detect(num_videos, num_frames, num_threads=num_threads) == expected


def test_a_process_of_torchrun_starts_no_other(
    became: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSTFE_NPROC", "2")
    monkeypatch.setenv("RANK", "0")

    launch_processes("pipelines.train", lambda: 4)

    assert became == []


@pytest.mark.parametrize("number", ["0", "-1", "two", ""])
def test_a_number_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setenv("LSTFE_NPROC", number)

    with pytest.raises(UserError, match="LSTFE_NPROC must be a whole number >= 1"):
        launch_processes("pipelines.train", lambda: 4)


def test_the_environment_limits_the_clips_of_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    assert micro_batch() is None
    monkeypatch.setenv("LSTFE_MICRO_BATCH", "2")
    assert micro_batch() == 2
    monkeypatch.setenv("LSTFE_MICRO_BATCH", "0")
    with pytest.raises(UserError, match="LSTFE_MICRO_BATCH must be a whole number >= 1, got '0'"):
        micro_batch()


def torchrun(script: Path) -> subprocess.Popen[str]:
    arguments = ["--standalone", "--nproc-per-node=1", "--max-restarts=0", str(script)]
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.launch", *arguments],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "expected"),
    [("import sys; sys.exit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 137)],
    ids=["a user's fault", "killed"],
)
def test_torchrun_ends_with_the_code_of_the_training(tmp_path: Path, code: str, expected: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(code)
    assert torchrun(script).wait(60) == expected


@pytest.mark.slow
def test_torchrun_told_to_stop_waits_for_the_training_and_says_that_it_was_preempted(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, time\n"
        "from pathlib import Path\n"
        "def stop(*_): time.sleep(1); Path(__file__).with_name('saved').touch(); sys.exit(79)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "Path(__file__).with_name('started').touch()\n"
        "time.sleep(60)\n"
    )
    launcher = torchrun(script)
    while not (tmp_path / "started").exists():
        assert launcher.poll() is None
        time.sleep(0.05)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(60) == 79
    assert (tmp_path / "saved").exists()
