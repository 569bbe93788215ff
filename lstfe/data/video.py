"""Video files in and out. Frames are counted, never sought by time: containers lie about time stamps."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video.stream import VideoStream

from lstfe.errors import UserError

_LOGGER = logging.getLogger(__name__)

Frame = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
DEFAULT_FRAME_RATE = 30.0
"""Frames per second where nothing states any: of pictures, of some containers, cameras and annotations."""


class VideoError(UserError):
    """A video file is missing, unreadable or not what it was said to be."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file holds; `num_frames` is counted by decoding, `frame_rate` in frames per second."""

    width: int
    height: int
    num_frames: int
    frame_rate: float


def read_video(path: Path | str) -> Iterator[Frame]:
    """Yield the frames of a video in order, upright, (H, W, 3) RGB; VideoError unless it decodes to its end."""
    for frame in decode_video(path):
        yield upright_rgb(frame)


def probe_video(path: Path | str) -> VideoInfo:
    """Decode a video once and say what it holds."""
    width, height, num_frames = 0, 0, 0
    for frame in decode_video(path):
        (height, width), num_frames = upright_size(frame), num_frames + 1
    return VideoInfo(width, height, num_frames, video_frame_rate(path))


def video_frame_rate(path: Path | str) -> float:
    """Return the frames per second that the container states, DEFAULT_FRAME_RATE where it states none."""
    try:
        with _open(path) as container:
            rate = _video_stream(container, path).average_rate
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be opened ({_reason(error)}), expected a video file") from None
    return float(rate) if rate else DEFAULT_FRAME_RATE


class VideoWriter:
    """Writes frames as H.264 (yuv420p) into an mp4; the same frames give the same file."""

    def __init__(
        self,
        path: Path | str,
        frame_rate: float,
        image_size: tuple[int, int],
        *,
        crf: int = 18,
    ) -> None:
        """`image_size` is (height, width), pixels; an odd side is padded by one row or column."""
        self.path = Path(path)
        self.image_size = image_size
        height, width = image_size
        try:
            self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
            rate = Fraction(frame_rate).limit_denominator(1001)
            self._stream = self._container.add_stream("libx264", rate=rate)
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{path}: cannot be written ({_reason(error)})") from None
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        # Several threads make the file depend on their timing, and x264's vectorised macroblock tree on
        # chance: without `cpu-independent` the same frames gave many different files.
        self._stream.codec_context.thread_count = 1
        self._stream.options = {"crf": str(crf), "preset": "veryfast", "x264-params": "cpu-independent=1"}

    def write(self, frame: Frame) -> None:
        """Append one frame, (H, W, 3) RGB of the writer's image size."""
        if frame.shape != (*self.image_size, 3):
            raise VideoError(f"{self.path}: frame of shape {frame.shape}, expected {(*self.image_size, 3)}")
        height, width = self.image_size
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24"))

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        try:
            self._encode(None)
        finally:
            self._container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self.path}: cannot be written ({_reason(error)})") from None


def decode_video(path: Path | str, *, options: dict[str, str] | None = None) -> Iterator[av.VideoFrame]:
    """Yield the frames of a video as decoded, with FFmpeg's `options`; VideoError unless it decodes to its end."""
    num_frames, num_damaged = 0, 0
    try:
        with _open(path, options) as container:
            stream = _video_stream(container, path)
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                yield frame
                num_frames += 1
                num_damaged += frame.is_corrupt
            announced = stream.frames
    except PermissionError as error:
        raise VideoError(f"{path}: cannot be read ({_reason(error)}), expected a file that may be") from None
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"{path}: cannot be decoded past frame {num_frames} ({_reason(error)}), "
            "expected a whole video; replace the file"
        ) from None
    _check_length(path, num_frames, announced)
    if num_damaged:
        _warn_of_damage(str(path), num_damaged, num_frames)


@lru_cache(maxsize=64)  # said once, though a video is read more than once
def _warn_of_damage(path: str, num_damaged: int, num_frames: int) -> None:
    _LOGGER.warning(
        "%s: damaged, at least %d of %d frames were patched up by the decoder; look at it, or replace the file",
        path,
        num_damaged,
        num_frames,
    )


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Return (height, width) of a decoded frame as a player shows it."""
    is_transposed, _, _ = _orientation(frame)
    return (frame.width, frame.height) if is_transposed else (frame.height, frame.width)


def upright_rgb(frame: av.VideoFrame) -> Frame:
    """Return a decoded frame as a player shows it, (H, W, 3) RGB."""
    picture = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    is_transposed, is_mirrored, is_upside_down = _orientation(frame)
    if is_transposed:
        picture = picture.transpose(1, 0, 2)
    if is_mirrored:
        picture = picture[:, ::-1]
    if is_upside_down:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)  # the same array where nothing was to do


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Say whether to swap a frame's axes, and then to mirror it left to right and top to bottom.

    Phones film with the sensor's axes and leave it to the file's display matrix to turn the picture.
    """
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]  # PyAV says str
    if matrix is None:
        return False, False, False
    # libavutil/display.h: shown x = a x + c y, shown y = b x + d y. Players know quarter turns only.
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


def _open(path: Path | str, options: dict[str, str] | None = None) -> InputContainer:
    if not Path(path).is_file():
        raise VideoError(f"{path}: no such video file")
    return av.open(str(path), options=options)


def _video_stream(container: InputContainer, path: Path | str) -> VideoStream:
    if not container.streams.video:
        raise VideoError(f"{path}: holds no video stream, expected one")
    return container.streams.video[0]


def _check_length(path: Path | str, num_frames: int, announced: int) -> None:
    if num_frames == 0:
        raise VideoError(
            f"{path}: holds no frame that can be decoded, expected at least one; replace the file"
        )
    # An edit list may hide a few frames at either end; a file cut off in a copy lacks far more.
    if num_frames < 0.98 * announced - 2:
        raise VideoError(
            f"{path}: only {num_frames} of the {announced} frames that the file announces can be decoded; "
            "it is cut off or damaged: replace the file"
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
