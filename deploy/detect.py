"""Detect objects in a video, a folder of pictures or a live stream, with a bundle and nothing else.

Writes `annotated.mp4` and `detections.json` frame by frame. Memory does not grow with the number of frames:
only those that still wait for their detections (the detector's lookahead) are kept.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from tqdm import tqdm

from deploy.bundle import StreamDetector, open_bundle
from deploy.output import DETECTIONS_FILE, VIDEO_FILE, DetectionOutput
from deploy.sources import FrameSource, SourceError, open_source
from lstfe.data.video import VideoError
from lstfe.errors import UserError
from lstfe.types import ByteArray, Detections


@dataclass(frozen=True, slots=True)
class DetectionRun:
    """What `detect_source` wrote."""

    output_dir: Path
    num_frames: int
    num_detections: int
    """Of any score, as in detections.json."""
    num_drawn: int
    """With the score that it takes to be drawn."""
    stopped: bool
    """Whether Ctrl-C (or SIGTERM) ended it early."""

    @property
    def message(self) -> str:
        """Say in one line what there is and where."""
        begin = "stopped early: " if self.stopped else ""
        found = f"{self.num_drawn} detections drawn, {self.num_detections} of any score"
        written = f"{begin}{self.num_frames} frames, {found}"
        if self.num_frames == 0:
            return f"{written} -> {self.output_dir / DETECTIONS_FILE}"
        return f"{written} -> {self.output_dir / VIDEO_FILE}, {self.output_dir / DETECTIONS_FILE}"


def detect_source(
    source: str | int | Path,
    bundle_dir: Path | str,
    *,
    backend: str = "onnx",
    output_dir: Path | str,
    score_threshold: float | None = None,
    progress: bool = True,
    max_frames: int | None = None,
) -> DetectionRun:
    """Detect on every frame of `source`; write the annotated video and detections.json into `output_dir`.

    `score_threshold` is the least score that is drawn (the bundle's by default); detections.json holds all.
    Ctrl-C ends the stream early and keeps what was found; a second one leaves at once.
    Raises UserError with one line for a bundle, a source or a backend that cannot be used.
    """
    if max_frames is not None and max_frames < 1:
        raise UserError(f"max_frames must be >= 1, got {max_frames}")
    bundle = open_bundle(bundle_dir)
    frames = open_source(source, max_frames=max_frames, progress=progress)
    detector = bundle.detector(backend, frames.num_frames)
    output = DetectionOutput(
        Path(output_dir),
        frames.name,
        frames.frame_rate,
        label_names=bundle.label_names,
        score_threshold=bundle.config.deploy.score_threshold if score_threshold is None else score_threshold,
    )
    total = frames.num_frames or max_frames
    with (
        StopRequest() as stop,
        output,
        tqdm(total=total, desc=frames.name, unit="frame", disable=not progress) as bar,
    ):
        _prime(detector, frames, stop)
        for frame, detections in _detect(detector, frames, stop):
            output.write(frame, detections)
            bar.update()
    return DetectionRun(
        output.directory, output.num_frames, output.num_detections, output.num_drawn, stop.requested
    )


def detections_of(frames: FrameSource, detector: StreamDetector) -> Iterator[Detections]:
    """Yield the detections of each frame, in order; a source that breaks off raises after what came before."""
    stop = StopRequest()  # not entered, so that no signal sets it
    _prime(detector, frames, stop)
    for _, detections in _detect(detector, frames, stop):
        yield detections


def _prime(detector: StreamDetector, frames: FrameSource, stop: StopRequest) -> None:
    """Show the detector the frames of its long-term pool, in a reading of their own."""
    if not detector.pool:
        return
    pool: dict[int, ByteArray] = {}
    for frame_index, frame in enumerate(islice(frames.read(), max(detector.pool) + 1)):
        if stop.requested:
            return
        if frame_index in detector.pool:
            pool[frame_index] = frame
    if missing := sorted(set(detector.pool) - set(pool)):
        raise SourceError(
            f"{frames.name}: frame {missing[0]} was counted but is not there on a second reading"
        )
    detector.prime(pool)


def _detect(
    detector: StreamDetector, frames: FrameSource, stop: StopRequest
) -> Iterator[tuple[ByteArray, Detections]]:
    """Yield each frame with its detections, in order; the frames in `waiting` are the only ones kept."""
    waiting: deque[ByteArray] = deque()
    broken: UserError | None = None
    try:
        for frame in _until_stopped(frames, stop):
            waiting.append(frame)
            for found in detector.push(frame):
                yield waiting.popleft(), found.detections
    except (SourceError, VideoError) as error:  # what came before the fault is worth keeping
        broken = error
    if waiting:
        for found in detector.finish():
            yield waiting.popleft(), found.detections
    if broken is not None:
        raise broken


def _until_stopped(frames: FrameSource, stop: StopRequest) -> Iterator[ByteArray]:
    if stop.requested:
        return
    size: tuple[int, ...] | None = None
    for frame_index, frame in enumerate(frames.read()):
        size = size or frame.shape
        if frame.shape != size:
            raise SourceError(
                f"{frames.name} frame {frame_index}: {frame.shape[1]}x{frame.shape[0]} pixels, the frames "
                f"before have {size[1]}x{size[0]}; expected one size for all"
            )
        yield frame
        if stop.requested:
            return


class StopRequest:
    """Turns the first Ctrl-C (or SIGTERM) into a flag, so that files are finished; the next acts as ever."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        print("\nstopping after the frames in hand; once more to leave at once", file=sys.stderr)

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
