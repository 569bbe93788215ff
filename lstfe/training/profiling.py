"""Where the time of an update goes: a trace for chrome://tracing or ui.perfetto.dev, and a table of the costliest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from lstfe.config import Config
from lstfe.training.loop import train

SKIPPED_UPDATES = 3
"""Updates before the trace begins: first ones load libraries and choose kernels."""


def profile_training(
    config: Config, *, prepared_dir: Path, trace: Path, updates: int = 3, still: bool = False
) -> str:
    """Train a few updates on whole clips (or still ones), write their trace as JSON and return the table.

    Nothing else is kept: neither checkpoints nor weights. `config` comes from `resolve_method`.
    """
    total = SKIPPED_UPDATES + updates
    recipe = replace(
        config.train,
        iterations=total,
        still_iterations=total if still else 0,
        log_every=1,
        checkpoint_every=total,
        validation_frames=0,
        release="last",
    )
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    trace.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        profile(
            activities=activities,
            schedule=schedule(wait=SKIPPED_UPDATES - 1, warmup=1, active=updates),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(trace)),
        ) as profiler,
    ):
        train(
            replace(config, train=recipe),
            prepared_dir=prepared_dir,
            checkpoint_dir=Path(folder),
            log=_stepping(profiler),
            validate=None,
            progress=False,
        )
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    table: str = profiler.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=40)
    return table


def _stepping(profiler: profile) -> Callable[[dict[str, float], int], None]:
    """Return what tells the profiler that an update is over."""

    def log(metrics: dict[str, float], iteration: int) -> None:
        profiler.step()

    return log
