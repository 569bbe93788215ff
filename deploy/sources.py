"""Where frames come from: a video file, a folder of pictures, a webcam, or a stream's address.

Frames are (H, W, 3) uint8 RGB. A source with a known length can be read more than once; a live one cannot.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from lstfe.data.footage import list_pictures
from lstfe.data.video import DEFAULT_FRAME_RATE, read_video, upright_rgb, video_frame_rate
from lstfe.errors import UserError
from lstfe.types import ByteArray

# A stream that neither opens nor sends a packet for so long is given up, in seconds.
_LIVE_TIMEOUT = (10.0, 10.0)
_CAMERA = re.compile(r"(?:/dev/video)?(\d+)")


class SourceError(UserError):
    """A source cannot be opened, holds no frames, or stops being readable."""


@dataclass(frozen=True, slots=True)
class FrameSource:
    """Frames with a name; `read` starts at the first frame each time it is called."""

    name: str
    """The video's name in detections.json."""
    num_frames: int | None
    """Frames counted by decoding, never taken from the container; None for a live stream."""
    frame_rate: float
    """Frames per second."""
    read: Callable[[], Iterator[ByteArray]]


def open_source(
    source: str | int | Path, *, max_frames: int | None = None, progress: bool = False
) -> FrameSource:
    """Open a video file, a folder of pictures, a camera (number or /dev/videoN) or a stream's URL.

    It ends after `max_frames` at the latest. A video file is decoded once to count its frames, with a bar if
    `progress`. Raises SourceError (or the reader's VideoError) with one line.
    """
    text, path = str(source), Path(source if isinstance(source, Path) else str(source))
    if not text.strip():
        raise SourceError(
            "the source is empty; expected a video, a folder of pictures, a camera or an address"
        )
    if "://" in text:
        opened = _stream(text)
    elif path.is_dir():
        opened = _picture_folder(path)
    elif path.is_file():
        opened = _video_file(path, max_frames, progress=progress)
    elif camera := _CAMERA.fullmatch(text):
        opened = _camera(int(camera[1]))
    else:
        raise SourceError(
            f"{path}: no such file or folder; expected a video, a folder of pictures, a camera's number, "
            "or an rtsp:// or http:// address"
        )
    if max_frames is None:
        return opened
    num_frames = None if opened.num_frames is None else min(opened.num_frames, max_frames)
    return replace(opened, num_frames=num_frames, read=lambda: islice(opened.read(), max_frames))


def _video_file(path: Path, max_frames: int | None, *, progress: bool) -> FrameSource:
    counted = tqdm(
        islice(read_video(path), max_frames),
        desc="counting frames",
        unit="frame",
        leave=False,
        disable=not progress,
    )
    num_frames = sum(1 for _ in counted)
    return FrameSource(path.stem, num_frames, video_frame_rate(path), lambda: read_video(path))


def _picture_folder(folder: Path) -> FrameSource:
    paths = list_pictures(folder)
    return FrameSource(folder.resolve().name, len(paths), DEFAULT_FRAME_RATE, lambda: _read_pictures(paths))


def _read_pictures(paths: list[Path]) -> Iterator[ByteArray]:
    for path in paths:
        try:
            with Image.open(path) as picture:
                if picture.mode.startswith(("I", "F")):
                    raise SourceError(
                        f"{path}: mode {picture.mode}, expected 8 bits a channel; convert it first"
                    )
                yield np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise SourceError(f"{path}: not readable as a picture ({error}); remove or replace it") from None


def _camera(number: int) -> FrameSource:
    if sys.platform.startswith("linux"):
        return _live(f"/dev/video{number}", f"camera{number}", file_format="v4l2")
    if sys.platform == "darwin":
        return _live(str(number), f"camera{number}", file_format="avfoundation")
    raise SourceError(f"camera {number}: cameras are read on Linux and macOS only; give a file or an address")


def _stream(url: str) -> FrameSource:
    # The address may carry a password, which must reach neither messages nor files.
    try:
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    except ValueError:
        raise SourceError(
            f"{url.partition('://')[0]}://...: not an address, expected one like rtsp://HOST/PATH"
        ) from None
    return _live(url, shown, options={"rtsp_transport": "tcp"} if parts.scheme == "rtsp" else {})


def _live(
    address: str, name: str, *, file_format: str | None = None, options: dict[str, str] | None = None
) -> FrameSource:
    try:
        container = av.open(address, format=file_format, options=options or {}, timeout=_LIVE_TIMEOUT)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(
            f"{name}: cannot be opened ({_reason(error)}); is it there and not in use?"
        ) from None
    if not container.streams.video:
        container.close()
        raise SourceError(f"{name}: no video in it")
    rate = container.streams.video[0].average_rate
    return FrameSource(name, None, float(rate or DEFAULT_FRAME_RATE), lambda: _read_live(container, name))


def _read_live(container: av.container.InputContainer, name: str) -> Iterator[ByteArray]:
    with container:
        try:
            for picture in container.decode(video=0):
                yield upright_rgb(picture)
        except (av.FFmpegError, OSError) as error:
            raise SourceError(f"{name}: the stream broke off ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """Return FFmpeg's words without the address, which may hold a password."""
    return getattr(error, "strerror", None) or type(error).__name__
