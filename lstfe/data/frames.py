"""Randomly accessible frames on disk: one zip a video, its JPEGs stored as they are."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from lstfe.data.video import Frame
from lstfe.errors import UserError

_LOCAL_HEADER = struct.Struct("<26xHH")  # ends with the lengths of the name and of the extra field


class FrameError(UserError):
    """A stored frame or a video's zip is missing or damaged."""


class FrameStore:
    """Frames of prepared videos: `directory` holds one `<video>.zip` a video.

    Holds no open file, so that it may be forked, pickled and shared by threads at any time.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self._indices: dict[str, dict[int, tuple[int, int]]] = {}

    def read(self, video: str, frame_id: int) -> Frame:
        """Return one frame, (H, W, 3) RGB; FrameError where it is missing or damaged."""
        try:
            with Image.open(io.BytesIO(self._read_bytes(video, frame_id)), formats=("JPEG",)) as image:
                return np.array(image)
        except OSError as error:
            raise FrameError(
                f"{self._path(video)}: frame {frame_id} is not readable as JPEG ({error}); "
                "prepare the data again"
            ) from None

    def frame_ids(self, video: str) -> list[int]:
        """Return the frames that are stored of a video, ascending."""
        return sorted(self._index(video))

    def _read_bytes(self, video: str, frame_id: int) -> bytes:
        index = self._index(video)
        if frame_id not in index:
            raise FrameError(f"{self._path(video)}: has no frame {frame_id}, holds {len(index)} frames")
        start, size = index[frame_id]
        with self._path(video).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), size, start)

    def _path(self, video: str) -> Path:
        return self.directory / f"{video}.zip"

    def _index(self, video: str) -> dict[int, tuple[int, int]]:
        if video not in self._indices:
            self._indices[video] = _read_index(self._path(video))
        return self._indices[video]


def write_frames(path: Path, frames: Iterable[tuple[int, Frame]], jpeg_quality: int) -> int:
    """Store (frame_id, frame) pairs as a zip of JPEGs, which appears when complete; return their number."""
    count = 0
    partial = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for frame_id, frame in frames:
                # A fixed date (ZipInfo's default), so that the same frames give the same file.
                archive.writestr(zipfile.ZipInfo(f"{frame_id:06d}.jpg"), _encode(frame, jpeg_quality))
                count += 1
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _encode(frame: Frame, jpeg_quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=jpeg_quality)
    return buffer.getvalue()


def _read_index(path: Path) -> dict[int, tuple[int, int]]:
    """Return frame id -> (first byte, size) of every JPEG in a stored zip."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            return {int(Path(entry.filename).stem): _data_span(entry, file) for entry in archive.infolist()}
    except FileNotFoundError:
        raise FrameError(f"{path}: no such file, expected the frames of a prepared video") from None
    except (OSError, ValueError, zipfile.BadZipFile, struct.error) as error:
        raise FrameError(f"{path}: not readable as stored frames ({error}); prepare the data again") from None


def _data_span(entry: zipfile.ZipInfo, file: io.BufferedReader) -> tuple[int, int]:
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{entry.filename} is compressed, expected stored")
    file.seek(entry.header_offset)
    name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length, entry.file_size
