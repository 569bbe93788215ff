"""Randomly accessible frames on disk: one zip a video, its JPEGs stored as they are."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from lstfe.data.video import Frame
from lstfe.errors import UserError
from lstfe.types import IntArray
from lstfe.whole_files import new_file

_LOCAL_HEADER = struct.Struct("<26xHH")  # ends with the lengths of the name and of the extra field


class FrameError(UserError):
    """A stored frame or a video's zip is missing or damaged."""


class FrameStore:
    """Frames of prepared videos: `directory` holds one `<video>.zip` a video.

    Holds no open file, so that it may be forked, pickled and shared by threads at any time.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self._indices: dict[str, _Index] = {}

    def read(self, video: str, frame_id: int) -> Frame:
        """Return one frame, (H, W, 3) RGB; FrameError where it is missing or damaged."""
        [content] = self.read_jpegs(video, [frame_id])
        return self._decode(video, frame_id, content, None)

    def read_into(self, video: str, frame_ids: Sequence[int], out: Sequence[Frame]) -> None:
        """Decode frames into memory, `out` one by one (H, W, 3); FrameError if missing, damaged or of another size."""
        # All are read before the first is decoded: in turn, both are a few percent slower.
        for frame_id, content, memory in zip(frame_ids, self.read_jpegs(video, frame_ids), out, strict=True):
            frame = self._decode(video, frame_id, content, memory)
            if frame.shape != memory.shape:
                raise FrameError(
                    f"{self._path(video)}: frame {frame_id} is {frame.shape[1]}x{frame.shape[0]} pixels, "
                    f"expected {memory.shape[1]}x{memory.shape[0]} as annotated; prepare the data again"
                )

    def read_jpegs(self, video: str, frame_ids: Sequence[int]) -> list[bytes]:
        """Return frames as they are stored; FrameError where one is missing or its checksum is wrong."""
        spans = [self._span(video, frame_id) for frame_id in frame_ids]
        try:
            contents = _read_spans(self._path(video), spans)
        except OSError as error:
            raise FrameError(f"{self._path(video)}: cannot be read ({error.strerror})") from None
        for frame_id, (_, _, checksum), content in zip(frame_ids, spans, contents, strict=True):
            # A JPEG with a few wrong bits still decodes, to wrong pixels.
            if zlib.crc32(content) != checksum:
                raise FrameError(
                    f"{self._path(video)}: frame {frame_id} is damaged (its checksum is wrong); "
                    "prepare the data again"
                )
        return contents

    def frame_ids(self, video: str) -> list[int]:
        """Return the frames that are stored of a video, ascending."""
        ids: list[int] = self._index(video).frame_ids.tolist()
        return ids

    def _decode(self, video: str, frame_id: int, content: bytes, out: Frame | None) -> Frame:
        try:
            return decode_jpeg(content, out)
        except ValueError as error:
            raise FrameError(
                f"{self._path(video)}: frame {frame_id} is not readable as JPEG ({error}); "
                "prepare the data again"
            ) from None

    def _span(self, video: str, frame_id: int) -> tuple[int, int, int]:
        """Return (first byte, size, checksum) of a frame."""
        index = self._index(video)
        place = int(index.frame_ids.searchsorted(frame_id))
        if place == len(index.frame_ids) or index.frame_ids[place] != frame_id:
            raise FrameError(
                f"{self._path(video)}: has no frame {frame_id}, holds {len(index.frame_ids)} frames"
            )
        start, size, checksum = index.spans[place].tolist()
        return start, size, checksum

    def _path(self, video: str) -> Path:
        return self.directory / f"{video}.zip"

    def _index(self, video: str) -> _Index:
        if video not in self._indices:
            self._indices[video] = _read_index(self._path(video))
        return self._indices[video]


def _read_spans(path: Path, spans: Iterable[tuple[int, int, int]]) -> list[bytes]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return [os.pread(descriptor, size, start) for start, size, _ in spans]
    finally:
        os.close(descriptor)


def decode_jpeg(content: bytes, out: Frame | None = None) -> Frame:
    """Decode a JPEG, (H, W, 3) RGB, into the memory of `out` where that is given and large enough.

    Raises ValueError where the JPEG is damaged or too large for `out`. The pixels are those of Pillow.
    """
    return np.asarray(simplejpeg.decode_jpeg(content, "RGB", buffer=out), np.uint8)


def write_frames(path: Path, frames: Iterable[tuple[int, Frame]], jpeg_quality: int) -> int:
    """Store (frame_id, frame) pairs as a zip of JPEGs, which appears when complete; return their number."""
    count = 0
    with new_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for frame_id, frame in frames:
            # A fixed date (ZipInfo's default), so that the same frames give the same file.
            archive.writestr(zipfile.ZipInfo(f"{frame_id:06d}.jpg"), _encode(frame, jpeg_quality))
            count += 1
    return count


def _encode(frame: Frame, jpeg_quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=jpeg_quality)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class _Index:
    """Where a video's frames lie: arrays, because a data set has millions of frames and a loader several processes."""

    frame_ids: IntArray
    """Ascending."""
    spans: IntArray
    """(first byte, size, checksum) of each."""


def _read_index(path: Path) -> _Index:
    """Find every JPEG in a stored zip."""
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            entries = archive.infolist()
            frame_ids = np.array([int(Path(entry.filename).stem) for entry in entries], np.int64)
            spans = np.array([_span(entry, file.fileno()) for entry in entries], np.int64).reshape(-1, 3)
    except FileNotFoundError:
        raise FrameError(f"{path}: no such file, expected the frames of a prepared video") from None
    except (OSError, ValueError, zipfile.BadZipFile, struct.error) as error:
        raise FrameError(f"{path}: not readable as stored frames ({error}); prepare the data again") from None
    order = np.argsort(frame_ids)
    return _Index(frame_ids[order], spans[order])


def _span(entry: zipfile.ZipInfo, descriptor: int) -> tuple[int, int, int]:
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{entry.filename} is compressed, expected stored")
    # The name and extra field of the local header may be longer than those of the directory at the end.
    header = os.pread(descriptor, _LOCAL_HEADER.size, entry.header_offset)
    start = entry.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(header))
    return start, entry.file_size, entry.CRC
