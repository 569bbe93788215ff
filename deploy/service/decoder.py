"""Decodes one untrusted video in a process of its own: `python -m deploy.service.decoder FILE LIMITS`.

What a crafted file can break in a decoder, it breaks here: the process may write no file, has a bound on its memory
and processor time, and is killed at will. Messages on its standard output, a tag and a length before each:

    I  {"num_frames", "width", "height", "frame_rate"}: the file was decoded to its end once
    F  one frame, (height, width, 3) uint8 RGB: those that a line on standard input names (a JSON list of
       ascending frame indices), then all of them
    E  why the file is refused; the last message then
    D  the end
"""

from __future__ import annotations

import json
import resource
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av

from lstfe.data.video import DEFAULT_FRAME_RATE, VideoError, decode_video, upright_rgb, upright_size
from lstfe.errors import UserError

HEADER = struct.Struct("<cI")
INFO, FRAME, ERROR, DONE = b"I", b"F", b"E", b"D"

# Only files that hold their frames themselves: playlists (HLS, DASH, concat) name others, which FFmpeg would fetch.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2",
    "matroska,webm",
    "avi,asf,flv,gif,h264,hevc,ivf,m4v,mjpeg,mpeg,mpegts,mpegvideo,mxf,nut,ogg,obu,av1",
)
_OPTIONS = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "file"}
MEMORY_BYTES = 2 * 1024**3
"""Address space of one decoder; `running_jobs` times this and the service itself must fit into the machine's memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoLimits:
    """What a video may be at most."""

    max_frames: int
    max_duration_s: float
    max_side_px: int
    max_frame_px: int
    cpu_s: int
    """Processor time of the decoder."""


class LimitError(UserError):
    """A video or a picture is larger than the service takes."""


def main() -> None:
    """Decode the file that the command line names."""
    path, limits = Path(sys.argv[1]), VideoLimits(**json.loads(sys.argv[2]))
    _confine(limits.cpu_s)
    output = sys.stdout.buffer
    try:
        _send(output, INFO, json.dumps(_examine(path, limits)).encode())
        pool = json.loads(sys.stdin.readline() or "[]")
        for frames in (_chosen(path, limits, set(pool)), _frames(path, limits)):
            for frame in frames:
                _send(output, FRAME, upright_rgb(frame).data.cast("B"))
        _send(output, DONE, b"")
    except UserError as error:
        _send(output, ERROR, str(error).encode())
    except MemoryError:
        _send(output, ERROR, f"{path}: needs more memory to be decoded than it may have".encode())
    except BrokenPipeError:  # nobody listens any more
        sys.stderr.close()


def check_size(name: object, width: int, height: int, *, max_side_px: int, max_frame_px: int) -> None:
    """Raise LimitError where a frame is larger than it may be."""
    if max(width, height) > max_side_px or width * height > max_frame_px:
        raise LimitError(
            f"{name}: frames of {width}x{height} pixels, expected at most {max_side_px} a side and "
            f"{max_frame_px} in all; scale it down"
        )


def _confine(cpu_s: int) -> None:
    for kind, bound in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, MEMORY_BYTES),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        try:
            resource.setrlimit(kind, (bound, bound))
        except (ValueError, OSError):  # macOS knows no bound on the address space
            continue


def _examine(path: Path, limits: VideoLimits) -> dict[str, float]:
    frame_rate = _check_header(path, limits)
    width, height, num_frames = 0, 0, 0
    for frame in _frames(path, limits):
        size = upright_size(frame)
        if num_frames and size != (height, width):
            raise VideoError(
                f"{path}: frame {num_frames} is {size[1]}x{size[0]} pixels, the frames before have "
                f"{width}x{height}; expected one size for all"
            )
        (height, width), num_frames = size, num_frames + 1
        _check_length(path, num_frames, frame_rate, limits)
    return {"num_frames": num_frames, "width": width, "height": height, "frame_rate": frame_rate}


def _check_header(path: Path, limits: VideoLimits) -> float:
    """Check what the file says of itself before anything is decoded; return its frames per second."""
    try:
        with av.open(str(path), options=_OPTIONS) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: holds no video stream, expected one")
            stream = container.streams.video[0]
            frame_rate = float(stream.average_rate or DEFAULT_FRAME_RATE)
            size = stream.codec_context.width, stream.codec_context.height
            announced = stream.frames
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise VideoError(f"{path}: cannot be opened ({reason}), expected a video file") from None
    check_size(path, *size, max_side_px=limits.max_side_px, max_frame_px=limits.max_frame_px)
    _check_length(path, announced, frame_rate, limits)
    return frame_rate


def _check_length(path: Path, num_frames: int, frame_rate: float, limits: VideoLimits) -> None:
    if num_frames > limits.max_frames or num_frames > limits.max_duration_s * frame_rate:
        raise LimitError(
            f"{path}: longer than {limits.max_frames} frames or {limits.max_duration_s:g} s; cut it into pieces"
        )


def _frames(path: Path, limits: VideoLimits) -> Iterator[av.VideoFrame]:
    for frame in decode_video(path, options=_OPTIONS):
        check_size(
            path, frame.width, frame.height, max_side_px=limits.max_side_px, max_frame_px=limits.max_frame_px
        )
        yield frame


def _chosen(path: Path, limits: VideoLimits, indices: set[int]) -> Iterator[av.VideoFrame]:
    if not indices:
        return
    last = max(indices)
    for index, frame in enumerate(_frames(path, limits)):
        if index in indices:
            yield frame
        if index >= last:
            return


def _send(output: BinaryIO, tag: bytes, content: bytes | memoryview) -> None:
    output.write(HEADER.pack(tag, len(content)))
    output.write(content)
    output.flush()


if __name__ == "__main__":
    main()
