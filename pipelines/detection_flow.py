"""The Prefect flow `detect_videos`: one task a video, on whatever task runner the settings name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.futures import as_completed
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from deploy.detect_all import DetectionJob, VideoOutcome, detect_video
from deploy.video_files import VideoFile
from lstfe.errors import UserError

Runner = Literal["processes", "threads", "dask", "ray"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerSettings:
    """Where tasks run."""

    kind: Runner = "processes"
    num_workers: int = 1
    address: str | None = None
    """Scheduler of a Dask or Ray cluster that is there already."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Runner):
            raise UserError(f"runner must be one of {', '.join(get_args(Runner))}, got {self.kind!r}")
        if self.num_workers < 1:
            raise UserError(f"the number of workers must be >= 1, got {self.num_workers}")
        if self.address is not None and self.kind not in ("dask", "ray"):
            raise UserError(f"an address is for the runners dask and ray, not for {self.kind}")


def task_runner(settings: RunnerSettings) -> Any:
    """Build Prefect's task runner; raises UserError where its package is not installed."""
    if settings.kind == "processes":
        return ProcessPoolTaskRunner(max_workers=settings.num_workers)
    if settings.kind == "threads":
        return ThreadPoolTaskRunner(max_workers=settings.num_workers)
    if settings.kind == "dask":
        return _dask_runner(settings)
    return _ray_runner(settings)


@task(task_run_name="{video.name}", cache_policy=NO_CACHE)
def detect_one(video: VideoFile, job: DetectionJob) -> VideoOutcome:
    """Detect on one video."""
    return detect_video(video, job)


@flow(name="detect_videos", validate_parameters=False)
def detect_videos(videos: list[VideoFile], job: DetectionJob) -> list[VideoOutcome]:
    """Detect on all videos; return what became of each, in their order."""
    log = get_run_logger()
    futures = [detect_one.submit(video, job) for video in videos]
    for number, future in enumerate(as_completed(futures), start=1):
        outcome = future.result()
        log.info("%d/%d %s: %s", number, len(videos), outcome.name, outcome.reason or outcome.state)
    outcomes = [future.result() for future in futures]
    table = [
        {"video": item.name, "state": item.state, "detections": item.num_detections, "reason": item.reason}
        for item in outcomes
    ]
    create_table_artifact(table, key="videos")
    return outcomes


def _dask_runner(settings: RunnerSettings) -> Any:
    try:
        from prefect_dask import DaskTaskRunner
    except ImportError:
        raise UserError("runner dask needs prefect-dask: pip install 'lstfe[scale]'") from None
    if settings.address is not None:
        return DaskTaskRunner(address=settings.address)
    cluster = {
        "n_workers": settings.num_workers,
        "threads_per_worker": 1,
        "processes": True,
        "dashboard_address": None,
    }
    return DaskTaskRunner(cluster_kwargs=cluster)


def _ray_runner(settings: RunnerSettings) -> Any:
    try:
        from prefect_ray import RayTaskRunner
    except ImportError:
        raise UserError("runner ray needs prefect-ray: pip install 'lstfe[ray]'") from None
    if settings.address is not None:
        return RayTaskRunner(address=settings.address)
    return RayTaskRunner(init_kwargs={"num_cpus": settings.num_workers, "include_dashboard": False})
