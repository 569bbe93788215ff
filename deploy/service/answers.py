"""What the service answers, as the OpenAPI page shows it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from deploy.service.jobs import Job, JobState, State


class ErrorAnswer(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="One line: what was found, what was expected, what to do.")


class ModelAnswer(BaseModel):
    """The model that gave an answer."""

    version: str = Field(description="Version in the model registry; for a bundle given by hand, its own.")
    bundle: str = Field(description="Version that the bundle's manifest states.")
    run_id: str | None = Field(description="Training run in the experiment tracker.")


class VideoAnswer(BaseModel):
    """One video of a job."""

    name: str = Field(description="What the records of the detections call it.")
    state: State
    num_frames: int | None = Field(description="Counted by decoding.")
    frames_done: int
    frame_rate: float | None = Field(description="Frames per second.")
    width: int | None = Field(description="Pixels.")
    height: int | None = Field(description="Pixels.")
    error: str | None


class JobAnswer(BaseModel):
    """A job and how far it is."""

    id: str
    state: JobState
    model: ModelAnswer | None = Field(description="The model that it began with; null while it waits.")
    queue_position: int | None = Field(description="Jobs before it; null once it has begun.")
    progress: float = Field(description="Share of the work that is done, 0 to 1.")
    num_detections: int = Field(description="So far, of any score.")
    videos: list[VideoAnswer]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class DetectionAnswer(BaseModel):
    """One detection: a row of detections.json, as `lstfe detect` writes it."""

    video: str
    frame_id: int = Field(description="0-based.")
    bbox: tuple[float, float, float, float] = Field(description="x, y, width, height in original pixels.")
    score: float
    category: str


class UrlsRequest(BaseModel):
    """Videos to be fetched."""

    model_config = ConfigDict(extra="forbid")

    urls: list[str] = Field(min_length=1, description="http:// or https:// addresses of video files.")


class HealthAnswer(BaseModel):
    """The process is alive."""

    status: str


class ReadyAnswer(BaseModel):
    """Whether new work is taken, and with which model."""

    status: str = Field(description="ready, loading or draining.")
    model: ModelAnswer | None = Field(description="The model that new work gets.")
    versions_in_use: list[str] = Field(description="Also older ones that finish their work.")
    fault: str | None = Field(description="Why the newest model is not in service; null where it is.")
    backend: str
    queued_jobs: int
    running_jobs: int
    active_streams: int
    needs_token: bool


def job_answer(job: Job, *, queue_position: int) -> JobAnswer:
    """Describe a job."""
    return JobAnswer(
        id=job.id,
        state=job.state,
        model=None if job.model is None else ModelAnswer.model_validate(job.model, from_attributes=True),
        queue_position=queue_position if job.state == "queued" else None,
        progress=_progress(job),
        num_detections=job.num_detections,
        videos=[
            VideoAnswer(
                name=video.name,
                state=video.state,
                num_frames=video.num_frames,
                frames_done=video.frames_done,
                frame_rate=video.frame_rate,
                width=video.width,
                height=video.height,
                error=video.error,
            )
            for video in job.videos
        ],
        created_at=_time(job.created_at),
        started_at=None if job.started_at is None else _time(job.started_at),
        finished_at=None if job.finished_at is None else _time(job.finished_at),
    )


def first_fault(faults: Any) -> str:
    """Say where a request's first fault is, of those that Pydantic found, and which."""
    fault = faults[0]
    return f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"


def _progress(job: Job) -> float:
    if job.is_finished or not job.videos:
        return 1.0
    done = [
        1.0 if video.state in ("done", "failed") else video.frames_done / (video.num_frames or 1)
        for video in job.videos
    ]
    return round(sum(done) / len(done), 4)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
