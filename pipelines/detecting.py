"""`lstfe detect-all`: one bundle over many videos, in parallel, each done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from deploy.bundle import open_bundle
from deploy.detect_all import DetectionJob, VideoOutcome, merge_results
from deploy.video_files import find_videos
from lstfe.errors import UserError
from pipelines.paths import find_project
from pipelines.servers.own_server import some_prefect_server
from pipelines.task_runners import Runner, RunnerSettings


def detect_all(
    sources: Sequence[str],
    bundle: Path,
    output: Path,
    *,
    backend: str = "onnx",
    runner: Runner = "processes",
    num_workers: int = 1,
    num_threads: int = 1,
    address: str | None = None,
) -> str:
    """Detect on all videos of `sources`, merge what was found, and return the closing lines.

    Raises UserError where a video failed, after all others are done and merged.
    """
    # What is wrong with any of these is said before anything starts.
    settings = RunnerSettings(kind=runner, num_workers=num_workers, address=address)
    open_bundle(bundle)
    videos = find_videos(sources)
    job = DetectionJob(
        bundle=str(bundle.resolve()),
        output=str(output.resolve()),
        backend=backend,
        num_threads=num_threads,
    )
    output.mkdir(parents=True, exist_ok=True)
    with some_prefect_server(_root(output)):
        from pipelines.detection_flow import (  # imports prefect
            detect_videos,
            send_what_is_left,
            task_runner,
        )

        try:
            outcomes = detect_videos.with_options(task_runner=task_runner(settings))(videos, job)
        finally:
            send_what_is_left()
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


def _root(output: Path) -> Path:
    """Return the project, or the output folder: a bundle needs no project."""
    try:
        return find_project()
    except UserError:
        return output.resolve()
