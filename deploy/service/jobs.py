"""Jobs: videos that wait, are detected and are remembered for a while.

A few threads each take one job at a time; its frames then take turns at the network with those of all other jobs
and streams. A job keeps the model that it began with.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from deploy.service.champion import Champion, ModelName, NotReadyError, ServedModel
from deploy.service.decoder import VideoLimits
from deploy.service.decoding import DecodedVideo
from deploy.service.fetching import FetchLimits, FetchStopper, fetch_video
from deploy.service.metrics import ServiceMetrics
from deploy.service.scheduler import FairScheduler, Lane
from deploy.service.settings import ServeSettings
from deploy.service.spool import Spool
from lstfe.errors import UserError
from lstfe.evaluation.records import to_records
from lstfe.types import FrameDetections

_log = logging.getLogger(__name__)
_DETECTIONS = "detections.jsonl"
# While the network works on one frame, the next is already decoded.
_FRAMES_AHEAD = 2
# Jobs under way end so soon when they are told to; what does not must not keep the process.
_STOP_S = 5.0
# How often results are looked through for those that are kept no longer.
_FORGET_S = 30.0

State = Literal["queued", "fetching", "counting", "detecting", "done", "failed"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class QueueFullError(UserError):
    """Too many jobs wait already."""


class DrainingError(UserError):
    """The service takes no new work because it is about to end."""


@dataclass(slots=True)
class JobVideo:
    """One video of a job, and how far it is."""

    name: str
    """What records call it; a label, never a path."""
    url: str | None = None
    """Where it is fetched from; None: it was uploaded."""
    path: Path | None = None
    """Where it lies while it is needed."""
    state: State = "queued"
    num_frames: int | None = None
    frames_done: int = 0
    frame_rate: float | None = None
    """Frames per second."""
    width: int | None = None
    height: int | None = None
    error: str | None = None


@dataclass(slots=True)
class Job:
    """Some videos of one client."""

    id: str
    client: str
    folder: Path
    videos: list[JobVideo]
    state: JobState = "queued"
    model: ModelName | None = None
    created_at: float = field(default_factory=time.time)
    """Seconds since 1970, as the next two."""
    started_at: float | None = None
    finished_at: float | None = None
    num_detections: int = 0
    num_bytes: int = 0
    """Of the detections that can be read."""
    was_read: bool = False
    """Whether somebody has had the finished results."""
    abort_reason: str | None = None
    decoder: DecodedVideo | None = None
    fetch: FetchStopper | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def detections_path(self) -> Path:
        """One record of detections.json a line."""
        return self.folder / _DETECTIONS

    def abort(self, reason: str) -> None:
        """End a running job at its next frame, or at once where it waits for a decoder or an address."""
        self.abort_reason = self.abort_reason or reason
        if (fetch := self.fetch) is not None:
            fetch.stop(self.abort_reason)
        if (decoder := self.decoder) is not None:
            decoder.stop(self.abort_reason)

    def raise_if_aborted(self) -> None:
        """Raise UserError where the job is to end."""
        if self.abort_reason is not None:
            raise UserError(self.abort_reason)


class JobQueue:
    """All jobs of a service: waiting, running, and finished ones whose results are kept."""

    def __init__(
        self,
        settings: ServeSettings,
        *,
        champion: Champion,
        scheduler: FairScheduler,
        spool: Spool,
        metrics: ServiceMetrics,
    ) -> None:
        self._settings, self._champion, self._scheduler = settings, champion, scheduler
        self._spool, self._metrics = spool, metrics
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._reserved = 0
        self._running = 0
        self._changed = threading.Condition()
        self._is_draining = False
        self._is_stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"lstfe-job-{number}", daemon=True)
            for number in range(settings.running_jobs)
        ]
        self._ended = threading.Event()
        self._threads.append(threading.Thread(target=self._forget, name="lstfe-forget", daemon=True))

    @property
    def num_waiting(self) -> int:
        """Jobs that nobody works on yet."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Jobs under way."""
        return self._running

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def reserve(self, client: str) -> Job:
        """Make a job with a folder for its uploads; it takes a place in the queue until `submit` or `discard`.

        Raises QueueFullError, or DrainingError while the service ends.
        """
        with self._changed:
            if self._is_draining:
                raise DrainingError("the service is about to end; ask another or try again soon")
            if len(self._waiting) + self._reserved >= self._settings.max_queued_jobs:
                raise QueueFullError(f"{len(self._waiting)} jobs wait already; try again later")
            self._reserved += 1
        job_id = secrets.token_hex(16)
        try:
            return Job(job_id, client, self._spool.new_entry(job_id), [])
        except BaseException:  # a spool that is full or read-only
            with self._changed:
                self._reserved -= 1
            raise

    def submit(self, job: Job) -> None:
        """Put a reserved job into the queue; its videos are complete."""
        with self._changed:
            self._reserved -= 1
            self._jobs[job.id] = job
            self._waiting.append(job)
            self._forget_old()
            self._changed.notify()

    def discard(self, job: Job) -> None:
        """Give a reserved place back, and remove what was uploaded."""
        with self._changed:
            self._reserved -= 1
        self._spool.remove_entry(job.id)

    def find(self, job_id: str, client: str) -> Job | None:
        """Return a client's job; those of others are as good as not there."""
        with self._changed:
            self._forget_old()
            job = self._jobs.get(job_id)
        return job if job is not None and job.client == client else None

    def place_of(self, job: Job) -> int:
        """Return how many jobs are before a waiting one."""
        with self._changed:
            return self._waiting.index(job) if job in self._waiting else 0

    def delete(self, job: Job) -> None:
        """Cancel a job and forget it with its results."""
        with self._changed:
            self._jobs.pop(job.id, None)
            if job in self._waiting:
                self._waiting.remove(job)
                self._finish(job, "cancelled")
        if job.is_finished:
            self._spool.remove_entry(job.id)
        else:
            job.abort("cancelled")

    def drain(self) -> None:
        """Take no new jobs from now on."""
        with self._changed:
            self._is_draining = True

    @property
    def is_idle(self) -> bool:
        """Whether no accepted job waits or runs."""
        return not (self._waiting or self._running or self._reserved)

    @property
    def has_unread_results(self) -> bool:
        """Whether a finished job's results were not yet asked for."""
        with self._changed:
            return any(job.state == "done" and not job.was_read for job in self._jobs.values())

    def stop(self) -> None:
        """End the threads; jobs under way fail, jobs that wait are cancelled."""
        with self._changed:
            self._is_draining = self._is_stopped = True
            for job in self._waiting:
                self._finish(job, "cancelled")
            self._waiting.clear()
            running = [job for job in self._jobs.values() if job.state == "running"]
            self._changed.notify_all()
        self._ended.set()
        for job in running:
            job.abort("the service ended")
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            _log.warning("a job does not end within %g s and is left behind", _STOP_S)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_stopped:
                    self._changed.wait()
                if self._is_stopped:
                    return
                job = self._waiting.popleft()
                job.state, job.started_at = "running", time.time()
                self._running += 1
            timer = threading.Timer(self._settings.job_timeout_s, job.abort, (self._too_long(),))
            timer.daemon = True
            timer.start()
            try:
                state = JobRun(job, self._settings, self._champion, self._scheduler, self._metrics).run()
            except Exception as error:  # a bug of ours must not take a worker from all later jobs
                _log.exception("job %s", job.id)
                state = _fail(job, f"internal error ({type(error).__name__}); it is in the service's log")
            finally:
                timer.cancel()
            with self._changed:
                self._running -= 1
                self._finish(job, state)
                is_wanted = job.id in self._jobs
            if not is_wanted:
                self._spool.remove_entry(job.id)

    def _too_long(self) -> str:
        return f"took longer than {self._settings.job_timeout_s:g} s; cut the video into pieces"

    def _finish(self, job: Job, state: JobState) -> None:
        for video in job.videos:
            if video.path is not None:
                with contextlib.suppress(OSError):  # a spool that fails must not take the worker as well
                    video.path.unlink(missing_ok=True)
        job.state, job.finished_at = state, time.time()
        self._metrics.jobs.labels(state).inc()
        _log.info("job %s %s, %d detections", job.id, state, job.num_detections)

    def _forget(self) -> None:
        """Forget what is too old also while nobody asks for anything."""
        while not self._ended.wait(min(self._settings.keep_results_s, _FORGET_S)):
            with self._changed:
                self._forget_old()

    def _forget_old(self) -> None:
        finished = [job for job in self._jobs.values() if job.is_finished]
        spare = len(finished) - self._settings.max_kept_jobs
        expired = time.time() - self._settings.keep_results_s
        for place, job in enumerate(finished):
            if place < spare or (job.finished_at or 0.0) < expired:
                del self._jobs[job.id]
                self._spool.remove_entry(job.id)


class JobRun:
    """Detects on the videos of one job, one after the other."""

    def __init__(
        self,
        job: Job,
        settings: ServeSettings,
        champion: Champion,
        scheduler: FairScheduler,
        metrics: ServiceMetrics,
    ) -> None:
        self._job, self._settings = job, settings
        self._champion, self._scheduler, self._metrics = champion, scheduler, metrics
        self._fetched_bytes = 0

    def run(self) -> JobState:
        """Return how the job ended; a video that fails does not keep the next from its turn."""
        job = self._job
        try:
            model = self._champion.acquire()
        except NotReadyError as error:
            return _fail(job, str(error))
        job.model = model.name
        try:
            with job.detections_path.open("xb") as output:
                for video in job.videos:
                    self._run_video(video, model, output)
        finally:
            self._champion.release(model)
        if job.abort_reason == "cancelled":
            return "cancelled"
        return "failed" if any(video.state == "failed" for video in job.videos) else "done"

    def _run_video(self, video: JobVideo, model: ServedModel, output: BinaryIO) -> None:
        lane = self._scheduler.open_lane()
        try:
            self._job.raise_if_aborted()
            path = video.path if video.url is None else self._fetch(video)
            assert path is not None
            video.state = "counting"
            with DecodedVideo(path, video.name, self._limits()) as decoder:
                self._job.decoder = decoder
                self._job.raise_if_aborted()
                self._detect(video, decoder, model, lane, output)
            video.state = "done"
        except UserError as error:
            video.state, video.error = "failed", str(error)
            self._metrics.rejected.labels("video").inc()
        finally:
            self._job.decoder = None
            lane.close()
            if video.path is not None:
                video.path.unlink(missing_ok=True)

    def _fetch(self, video: JobVideo) -> Path:
        assert video.url is not None
        video.state = "fetching"
        video.path = self._job.folder / f"{self._job.videos.index(video)}.video"
        limits = FetchLimits(
            max_bytes=max(1, self._settings.max_upload_bytes - self._fetched_bytes),
            timeout_s=self._settings.fetch_timeout_s,
            allow_private=self._settings.allow_private_urls,
        )
        stopper = self._job.fetch = FetchStopper()
        try:
            self._job.raise_if_aborted()
            self._fetched_bytes += fetch_video(video.url, video.path, limits, stopper=stopper)
        finally:
            self._job.fetch = None
        return video.path

    def _detect(
        self, video: JobVideo, decoder: DecodedVideo, model: ServedModel, lane: Lane, output: BinaryIO
    ) -> None:
        facts = decoder.facts()
        video.num_frames, video.frame_rate = facts.num_frames, facts.frame_rate
        video.width, video.height = facts.width, facts.height
        video.state = "detecting"
        detector = model.detector(facts.num_frames)
        for index, frame in decoder.pool_frames(detector.pool or ()):
            self._job.raise_if_aborted()
            lane.submit(lambda index=index, frame=frame: detector.prime({index: frame})).result()  # type: ignore[misc]
        ahead: deque[Future[list[FrameDetections]]] = deque()
        for frame in decoder.frames():
            self._job.raise_if_aborted()
            ahead.append(lane.submit(lambda frame=frame: detector.push(frame)))  # type: ignore[misc]
            if len(ahead) >= _FRAMES_AHEAD:
                self._write(video, model, ahead.popleft().result(), output)
        ahead.append(lane.submit(detector.finish))
        while ahead:
            self._write(video, model, ahead.popleft().result(), output)

    def _write(
        self, video: JobVideo, model: ServedModel, found: Sequence[FrameDetections], output: BinaryIO
    ) -> None:
        for frame in found:
            records = to_records(
                frame.detections, video=video.name, frame_id=frame.frame_index, label_names=model.label_names
            )
            for record in records:
                output.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")
            self._job.num_detections += len(records)
            self._metrics.detections.inc(len(records))
            self._metrics.frames.labels("video").inc()
            video.frames_done += 1
        output.flush()
        self._job.num_bytes = output.tell()

    def _limits(self) -> VideoLimits:
        settings = self._settings
        return VideoLimits(
            max_frames=settings.max_frames,
            max_duration_s=settings.max_duration_s,
            max_side_px=settings.max_side_px,
            max_frame_px=settings.max_frame_px,
            cpu_s=max(1, int(settings.job_timeout_s)),
        )


def label_of(given: str, taken: Sequence[str]) -> str:
    """Return a name for a video: the last part of what a client says, without suffix, and unlike those `taken`."""
    stem = given.replace("\\", "/").rpartition("/")[2]
    stem = stem.rpartition(".")[0] or stem
    name = re.sub(r"[^\w .+()@#=-]", "_", stem).strip(" .")[:100] or "video"
    number, label = 1, name
    while label in taken:
        number += 1
        label = f"{name}-{number}"
    return label


def _fail(job: Job, reason: str) -> JobState:
    for video in job.videos:
        if video.state != "done":
            video.state, video.error = "failed", video.error or reason
    return "failed"
