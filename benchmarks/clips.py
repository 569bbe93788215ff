"""What the benchmarks share: real clips and a clock for busy machines."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lstfe.data.video import Frame, read_video
from lstfe.errors import UserError

NUM_CLIPS = 8
"""Clips that are measured on, spread evenly over the folder."""


class BenchmarkError(UserError):
    """There is nothing to measure on."""


def default_videos() -> Path:
    """Return the folder of real clips: drones-dev below $LSTFE_SHARED."""
    return Path(os.environ.get("LSTFE_SHARED", ".")) / "data" / "drones-dev" / "videos"


def choose_clips(folder: Path) -> list[Path]:
    """Return NUM_CLIPS of the folder's mp4 files, evenly spread over their names."""
    paths = sorted(folder.glob("*.mp4"))
    if not paths:
        raise BenchmarkError(f"{folder}: no mp4 files; name a folder of clips with --videos")
    return [paths[place] for place in np.linspace(0, len(paths) - 1, min(NUM_CLIPS, len(paths))).astype(int)]


def decode_clips(paths: Sequence[Path]) -> dict[str, list[Frame]]:
    """Decode whole clips: name -> frames, as `prepare` sees them."""
    return {path.stem: list(read_video(path)) for path in paths}


def far_and_near(lengths: dict[str, int], count: int) -> tuple[list[Place], list[Place]]:
    """Draw frames anywhere in all clips, and as many in runs of ten neighbours: two lists of (clip, frame)."""
    random = np.random.default_rng(0)
    names = sorted(lengths)
    drawn = [names[place] for place in random.integers(len(names), size=count)]
    far = [(name, int(random.integers(lengths[name]))) for name in drawn]
    starts = [(name, int(random.integers(lengths[name] - 10))) for name in drawn[: count // 10]]
    return far, [(name, start + step) for name, start in starts for step in range(10)]


Place = tuple[str, int]
"""(clip, frame index)"""


def cpu_seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """Return the median processor time of `work`: what other programs do on the machine counts least so."""
    work()
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times)
