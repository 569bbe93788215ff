"""One job under way: its videos are fetched, decoded and detected on, one after the other."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from deploy.service.champion import Champion, NotReadyError, ServedModel
from deploy.service.decoder import VideoLimits
from deploy.service.decoding import DecodedVideo
from deploy.service.fetching import FetchLimits, FetchStopper, fetch_video
from deploy.service.jobs import Job, JobState, JobVideo
from deploy.service.metrics import ServiceMetrics
from deploy.service.scheduler import FairScheduler, Lane
from deploy.service.settings import ServeSettings
from lstfe.errors import UserError
from lstfe.evaluation.records import to_records
from lstfe.types import FrameDetections

# While the network works on one frame, the next is already decoded.
_FRAMES_AHEAD = 2


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
            return job.fail(str(error))
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
