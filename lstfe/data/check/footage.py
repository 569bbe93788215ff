"""What a check sees of one video: its length, size and content, read once from beginning to end.

Only the frame at hand is in memory, and small copies of a few.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from lstfe.data.coco_video import VideoEntry
from lstfe.data.footage import list_pictures, read_footage
from lstfe.data.video import Frame, VideoError

NUM_BACKGROUND_FRAMES = 5
"""Frames whose median stands for the background, spread over the video."""
_HASH_SIDE = 8
_THUMBNAIL_PX = 160
_PICTURE_PX = 480
_CHUNK_BYTES = 1 << 20


@dataclass(slots=True)
class Footage:
    """One video as found."""

    video: VideoEntry
    """As annotated."""
    path: Path
    fault: str | None = None
    """Why it cannot be read to its end."""
    num_frames: int = 0
    image_size: tuple[int, int] | None = None
    """(height, width) of the first frame that is not as annotated, else of all."""
    file_hash: str | None = None
    """SHA-256 of the file, or of all pictures of a folder."""
    background_hash: int | None = None
    """64 bits, see `hash_background`; None for a picture without any structure."""
    thumbnail: bytes = b""
    """A small JPEG of a frame near the middle."""
    pictures: dict[int, bytes] = field(default_factory=dict)
    """frame_id -> JPEG of the frames that were asked for."""


def examine_footage(path: Path, video: VideoEntry, wanted: Collection[int] = ()) -> Footage:
    """Read a video file or a picture folder once; `wanted` frames come back as pictures."""
    footage = Footage(video, path)
    samples: list[npt.NDArray[np.float64]] = []
    sampled = {
        (2 * n + 1) * video.num_frames // (2 * NUM_BACKGROUND_FRAMES) for n in range(NUM_BACKGROUND_FRAMES)
    }
    try:
        footage.file_hash = _hash_file(path)
        for frame_id, frame in enumerate(read_footage(path)):
            _note_size(footage, (frame.shape[0], frame.shape[1]))
            footage.num_frames = frame_id + 1
            if frame_id in wanted:
                footage.pictures[frame_id] = to_jpeg(frame, _PICTURE_PX)
            if frame_id in sampled:
                samples.append(_small_grey(frame))
            if frame_id == video.num_frames // 2 or not footage.thumbnail:
                footage.thumbnail = to_jpeg(frame, _THUMBNAIL_PX)
    except VideoError as error:
        footage.fault = str(error)
    except OSError as error:
        footage.fault = (
            f"{path}: not readable ({error.strerror}), expected a video file or a folder of pictures"
        )
    if samples:
        footage.background_hash = hash_background(np.median(samples, axis=0))
    return footage


def hash_background(grey: npt.NDArray[np.float64]) -> int | None:
    """Return 64 bits that change little when a picture (32, 32) does: signs of its lowest frequencies.

    The perceptual hash by cosine transform: each of the 8 x 8 coefficients past the mean, above their median or
    not. None where the picture is too even to be told from others.
    """
    places = np.arange(len(grey))
    waves = np.cos(np.pi / len(grey) * (places[None] + 0.5) * np.arange(1, _HASH_SIDE + 1)[:, None])
    if grey.std() < 2:
        return None
    coefficients = waves @ grey @ waves.T  # (8, 8)
    bits = coefficients.ravel() > np.median(coefficients)
    return int("".join("1" if bit else "0" for bit in bits), 2)


def to_jpeg(frame: Frame, max_px: int) -> bytes:
    """Return the frame, no side longer than `max_px`, as JPEG."""
    picture = Image.fromarray(frame)
    picture.thumbnail((max_px, max_px))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=70)
    return file.getvalue()


def _note_size(footage: Footage, image_size: tuple[int, int]) -> None:
    annotated = (footage.video.height, footage.video.width)
    if footage.image_size is None or footage.image_size == annotated:
        footage.image_size = image_size


def _small_grey(frame: Frame) -> npt.NDArray[np.float64]:
    small = Image.fromarray(frame).convert("L").resize((32, 32), Image.Resampling.BOX)
    return np.asarray(small, np.float64)


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    if not path.exists():
        raise VideoError(f"{path}: no such video, expected it as annotated; import again or put it there")
    for file_path in list_pictures(path) if path.is_dir() else [path]:
        with file_path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
