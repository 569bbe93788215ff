"""`lstfe detect-all` over 40 clips on Dask: the same result for any number of workers, also when one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lstfe.data.video import VideoWriter
from pipelines.servers.own_server import some_prefect_server

from ..deploy.conftest import build_method, bundle_dir, export, make_frames
from .conftest import wait_for

__all__ = ["build_method", "bundle_dir", "export", "make_frames"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
NUM_CLIPS = 40


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, make_frames: Callable[..., Iterator[Any]]) -> Path:
    """Return a folder of 40 clips of 4 frames, no two alike."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(NUM_CLIPS):
        with VideoWriter(folder / f"clip{number:02}.mp4", 30.0, (64, 96)) as writer:
            for frame in make_frames(4, seed=number):
                writer.write(frame)
    return folder


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One Prefect server for all runs: each would start one of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DVC_", "LSTFE_", "MLFLOW_", "PREFECT_")):
                patch.delenv(name)
        before = dict(os.environ)
        with some_prefect_server(tmp_path_factory.mktemp("prefect")):
            yield
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


def _start(clips: Path, bundle: Path, output: Path, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.cli", "detect-all", str(clips), "--runner", "dask"]
    command += ["--bundle", str(bundle), "--output", str(output), "--workers", str(workers)]
    return subprocess.Popen(
        command,
        cwd=output.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _journal(output: Path) -> list[dict[str, Any]]:
    path = output / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _finished(output: Path) -> Counter[str]:
    return Counter(entry["video"] for entry in _journal(output) if entry["event"] == "finished")


@pytest.fixture(scope="module")
def one_worker(
    clips: Path, bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory, _server: None
) -> Path:
    """Return what one worker found."""
    output = tmp_path_factory.mktemp("one") / "detected"
    run = _start(clips, bundle_dir, output, 1)
    text = run.communicate(timeout=600)[0]
    assert run.returncode == 0, text[-3000:]
    assert f"{NUM_CLIPS} videos ({NUM_CLIPS} detected)" in text
    return output


def test_a_second_run_does_nothing(one_worker: Path, clips: Path, bundle_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (one_worker / "videos").iterdir()}

    run = _start(clips, bundle_dir, one_worker, 1)

    assert f"{NUM_CLIPS} videos ({NUM_CLIPS} up to date)" in run.communicate(timeout=600)[0]
    assert {path: path.stat().st_mtime_ns for path in (one_worker / "videos").iterdir()} == before
    assert set(_finished(one_worker).values()) == {1}


def test_the_clips_of_a_killed_worker_are_done_by_another_and_none_twice(
    one_worker: Path, clips: Path, bundle_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "detected"
    run = _start(clips, bundle_dir, output, 2)
    wait_for(lambda: len(_finished(output)) >= 8, seconds=500, message="no clip was done")
    victim = int(_journal(output)[-1]["worker"].rpartition(":")[2])
    os.kill(victim, signal.SIGKILL)
    whole = {path: path.stat().st_mtime_ns for path in (output / "videos").glob("*.json")}
    text = run.communicate(timeout=600)[0]

    assert run.returncode == 0, text[-3000:]
    assert _finished(output) == {f"clip{number:02}": 1 for number in range(NUM_CLIPS)}
    assert {path: path.stat().st_mtime_ns for path in whole} == whole
    starts = Counter(entry["video"] for entry in _journal(output) if entry["event"] == "started")
    assert sum(starts.values()) - NUM_CLIPS <= 1, "more than the clip in the killed worker's hands"
    workers = {entry["worker"] for entry in _journal(output)}
    assert len(workers) >= 2, "the test meant two workers"
    assert (output / "detections.json").read_bytes() == (one_worker / "detections.json").read_bytes()
    assert len(json.loads((output / "detections.json").read_bytes())) > NUM_CLIPS
