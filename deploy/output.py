"""What a detection run leaves behind: an annotated video and detections.json, written frame by frame.

Both grow under hidden names and get their own when they are whole: a file by its own name can be trusted.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TextIO

from lstfe.data.video import VideoWriter
from lstfe.errors import UserError
from lstfe.evaluation.records import to_records
from lstfe.types import ByteArray, Detections
from lstfe.visualize import draw_detections

VIDEO_FILE = "annotated.mp4"
DETECTIONS_FILE = "detections.json"


class DetectionOutput:
    """Context manager around the two files; they are finished whatever ends the run, if it had any frame."""

    def __init__(
        self,
        directory: Path,
        name: str,
        frame_rate: float,
        *,
        label_names: tuple[str, ...],
        score_threshold: float,
    ) -> None:
        """`name` is the video's in detections.json, `score_threshold` the least score that is drawn."""
        self.directory = directory
        self.num_frames = 0
        self.num_detections = 0
        self.num_drawn = 0
        self._name = name
        self._frame_rate = frame_rate
        self._label_names = label_names
        self._score_threshold = score_threshold
        self._video: VideoWriter | None = None
        self._json: TextIO | None = None

    def write(self, frame: ByteArray, detections: Detections) -> None:
        """Append the next frame, (H, W, 3) uint8 RGB, and its detections."""
        if self._video is None:
            self._video = VideoWriter(self._partial(VIDEO_FILE), self._frame_rate, frame.shape[:2])
        self._video.write(draw_detections(frame, detections, self._label_names, self._score_threshold))
        records = to_records(
            detections, video=self._name, frame_id=self.num_frames, label_names=self._label_names
        )
        for record in records:
            begin = ",\n" if self.num_detections else "\n"
            self._write_text(begin + json.dumps(asdict(record), ensure_ascii=False))
            self.num_detections += 1
        self.num_drawn += int((detections.scores >= self._score_threshold).sum())
        self.num_frames += 1

    def __enter__(self) -> DetectionOutput:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._json = self._partial(DETECTIONS_FILE).open("w", encoding="utf-8")
        except OSError as error:
            raise self._refusal(error) from None
        self._write_text("[")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._video is not None:
                self._video.close()
                self._partial(VIDEO_FILE).replace(self.directory / VIDEO_FILE)
        finally:
            self._finish_json(failed=kind is not None)

    def _finish_json(self, *, failed: bool) -> None:
        assert self._json is not None
        with self._json:
            self._write_text("\n]\n" if self.num_detections else "]\n")
        if failed and self.num_frames == 0:
            self._partial(DETECTIONS_FILE).unlink()
        else:
            self._partial(DETECTIONS_FILE).replace(self.directory / DETECTIONS_FILE)

    def _write_text(self, text: str) -> None:
        assert self._json is not None, "DetectionOutput is used in a with statement"
        try:
            self._json.write(text)
        except OSError as error:
            raise self._refusal(error) from None

    def _refusal(self, error: OSError) -> UserError:
        return UserError(f"{self.directory}: cannot be written to ({error.strerror}); give another folder")

    def _partial(self, name: str) -> Path:
        return self.directory / f".partial-{name}"
