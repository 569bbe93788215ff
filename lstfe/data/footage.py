"""What a raw data set shows of one video: a video file, or a folder of pictures in natural order.

A single picture is a video of one frame.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lstfe.data.coco_video import VideoEntry
from lstfe.data.video import DEFAULT_FRAME_RATE, Frame, VideoError, VideoInfo, probe_video, read_video

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

ReportProgress = Callable[[int, int, str], None]
"""Takes the videos done, the videos in all and the name of the video just done."""


def find_footage(directories: Sequence[Path], name: str) -> Path:
    """Return the one video file or picture folder called `name` in the first directory that has any."""
    for directory in directories:
        found = _video_files(directory, name, VIDEO_SUFFIXES)
        # Only then, because some file systems would find the same file twice.
        found = found or _video_files(directory, name, [suffix.upper() for suffix in VIDEO_SUFFIXES])
        if (directory / name).is_dir():
            found.append(directory / name)
        if len(found) > 1:
            raise VideoError(
                f"{directory}: {name} is there as {' and '.join(p.name for p in found)}, expected once"
            )
        if found:
            return found[0]
    places = " or ".join(str(directory / name) for directory in directories)
    raise VideoError(
        f"{places}: no such video, expected a file ({', '.join(VIDEO_SUFFIXES)}) or a folder of pictures; "
        "name its folder with --videos DIR, or import with --annotations-only"
    )


def _video_files(directory: Path, name: str, suffixes: Sequence[str]) -> list[Path]:
    return [path for suffix in suffixes if (path := directory / f"{name}{suffix}").is_file()]


def list_pictures(folder: Path) -> list[Path]:
    """Return the pictures of a folder in natural order (frame_10 follows frame_9); VideoError for none."""
    # What begins with a dot belongs to a file manager, whatever it is called.
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    paths = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    if not paths:
        raise VideoError(f"{folder}: no pictures in it, expected one a frame ({', '.join(PICTURE_SUFFIXES)})")
    return sorted(paths, key=natural_order)


def natural_order(path: Path) -> list[tuple[bool, int, str]]:
    """Sort key in which frame_10 follows frame_9."""
    parts = re.split(r"([0-9]+)", path.name)
    return [
        (part.isdecimal(), int(part) if part.isdecimal() else 0, part.casefold()) for part in parts if part
    ]


def probe_footage(path: Path, *, frame_rate: float = DEFAULT_FRAME_RATE) -> VideoInfo:
    """Say what a video file (decoded to its end) or a picture folder (its first picture) holds."""
    pictures = _pictures(path)
    if not pictures:
        return probe_video(path)
    height, width, _ = _read_picture(pictures[0]).shape
    return VideoInfo(width, height, len(pictures), frame_rate)


def read_footage(path: Path) -> Iterator[Frame]:
    """Yield the frames of a video file or a picture folder in order, (H, W, 3) RGB."""
    pictures = _pictures(path)
    return map(_read_picture, pictures) if pictures else read_video(path)


def read_as_annotated(path: Path, video: VideoEntry) -> Iterator[Frame]:
    """Yield the frames as `read_footage` does; VideoError at the first that is not of the annotated size."""
    for frame_id, frame in enumerate(read_footage(path)):
        if frame.shape[:2] != (video.height, video.width):
            raise VideoError(
                f"{path}: frame {frame_id} is {frame.shape[1]}x{frame.shape[0]} pixels, "
                f"expected {video.width}x{video.height} as annotated"
            )
        yield frame


def place_footage(source: Path, target: Path, *, link: bool) -> None:
    """Copy a video file or the pictures of a folder, or hard-link where `link` and the file system allow."""
    if target.exists() and target.samefile(source):
        return
    if not source.is_dir():
        _place_file(source, target, link=link)
        return
    target.mkdir()
    for picture in list_pictures(source):
        _place_file(picture, target / picture.name, link=link)


def _pictures(path: Path) -> list[Path]:
    """Return the pictures that a path stands for, none for a video file."""
    if path.is_dir():
        return list_pictures(path)
    return [path] if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file() else []


def _place_file(source: Path, target: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:
            pass  # Another file system: a copy serves as well.
    shutil.copyfile(source, target)


def _read_picture(path: Path) -> Frame:
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise VideoError(f"{path}: mode {picture.mode}, expected 8 bits a channel; convert it first")
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), np.uint8)
    except (OSError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: not readable as a picture ({error}); remove or replace it") from None
