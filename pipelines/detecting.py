"""`lstfe detect-all`: one bundle over many videos, in parallel, each done once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from deploy.bundle import open_bundle
from deploy.detect_all import DetectionJob, VideoOutcome, merge_results
from deploy.video_files import find_videos
from lstfe.errors import UserError
from pipelines.environment import default_settings
from pipelines.paths import find_project


def detect_all(
    sources: Sequence[str],
    bundle: Path,
    output: Path,
    *,
    backend: str = "onnx",
    runner: str = "processes",
    num_workers: int = 1,
    num_threads: int = 1,
    address: str | None = None,
) -> str:
    """Detect on all videos of `sources`, merge what was found, and return the closing lines.

    Raises UserError where a video failed, after all others are done and merged.
    """
    open_bundle(bundle)  # says what is wrong with it before anything starts
    videos = find_videos(sources)
    _apply_settings(output)
    from pipelines.detection_flow import RunnerSettings, detect_videos, task_runner

    chosen = task_runner(RunnerSettings(kind=runner, num_workers=num_workers, address=address))  # type: ignore[arg-type]
    job = DetectionJob(
        bundle=str(bundle.resolve()),
        output=str(output.resolve()),
        backend=backend,
        num_threads=num_threads,
    )
    output.mkdir(parents=True, exist_ok=True)
    outcomes = detect_videos.with_options(task_runner=chosen)(videos, job)
    merged = merge_results(job, [item.name for item in outcomes if item.state != "failed"])
    message = closing_line(outcomes, merged)
    if failed := [item for item in outcomes if item.state == "failed"]:
        raise UserError(f"{message}; the first that failed is {failed[0].name}: {failed[0].reason}")
    return message


def closing_line(outcomes: Sequence[VideoOutcome], merged: Path) -> str:
    """Say how many videos were detected on, were up to date, and failed, and where the detections are."""
    counts = Counter(item.state for item in outcomes)
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    found = sum(item.num_detections for item in outcomes)
    return f"{len(outcomes)} videos ({states}), {found} detections -> {merged}"


def _apply_settings(output: Path) -> None:
    """Give this process the project's settings; a bundle outside of a project works as well."""
    try:
        root = find_project()
    except UserError:
        root = output.resolve()
    for name, value in default_settings(root).items():
        os.environ.setdefault(name, value)
