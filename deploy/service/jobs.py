"""Jobs: some videos of one client, how far they are, and what a running one is told."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploy.service.champion import ModelName
from deploy.service.decoding import DecodedVideo
from deploy.service.fetching import FetchStopper
from lstfe.errors import UserError

_DETECTIONS = "detections.jsonl"

State = Literal["queued", "fetching", "counting", "detecting", "done", "failed"]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]


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

    def fail(self, reason: str) -> JobState:
        """Note why the videos that are not done never will be; return the job's state."""
        for video in self.videos:
            if video.state != "done":
                video.state, video.error = "failed", video.error or reason
        return "failed"


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
