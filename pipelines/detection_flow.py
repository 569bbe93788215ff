"""The Prefect flow `detect_videos`: one task a video, on whatever task runner the settings name."""

from __future__ import annotations

import logging
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events.worker import EventsWorker
from prefect.futures import as_completed
from prefect.logging.handlers import APILogWorker
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from deploy.detect_all import DetectionJob, VideoOutcome, detect_video
from deploy.video_files import VideoFile
from pipelines.task_runners import RunnerSettings

_SEND_SECONDS = 20.0


def task_runner(settings: RunnerSettings) -> Any:
    """Build Prefect's task runner."""
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


def send_what_is_left() -> None:
    """Let Prefect send its logs and events: without the server it would try for more than a minute at exit."""
    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=_SEND_SECONDS)


def _dask_runner(settings: RunnerSettings) -> Any:
    from prefect_dask.task_runners import DaskTaskRunner

    # Dask tells of every connection.
    logging.getLogger("distributed").setLevel(logging.WARNING)
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
    from prefect_ray import RayTaskRunner

    if settings.address is not None:
        return RayTaskRunner(address=settings.address)
    return RayTaskRunner(init_kwargs={"num_cpus": settings.num_workers, "include_dashboard": False})
