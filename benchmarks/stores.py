"""Ways to keep the frames of a video so that any of them can be read: one class each."""

from __future__ import annotations

import importlib
import io
import math
import os
import tarfile
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.container import InputContainer

from lstfe.data.frames import FrameStore, decode_jpeg, write_frames
from lstfe.data.video import Frame


class Store(Protocol):
    """Frames of videos in a folder."""

    def __init__(self, folder: Path) -> None: ...

    def write(self, name: str, frames: Sequence[Frame], jpegs: Sequence[bytes]) -> None:
        """Store a video; `jpegs` are its frames encoded."""

    def read(self, name: str, index: int) -> Frame:
        """Return a frame, (H, W, 3) RGB."""


class ZipOfJpegs:
    """The project's own: a stored zip a video."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._store = folder, FrameStore(folder)

    def write(self, name: str, frames: Sequence[Frame], jpegs: Sequence[bytes]) -> None:
        """Store a video."""
        write_frames(self._folder / f"{name}.zip", enumerate(frames), 95)

    def read(self, name: str, index: int) -> Frame:
        """Return a frame."""
        return self._store.read(name, index)


class FolderOfJpegs:
    """A file a frame."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, frames: Sequence[Frame], jpegs: Sequence[bytes]) -> None:
        """Store a video."""
        (self._folder / name).mkdir()
        for index, jpeg in enumerate(jpegs):
            self._path(name, index).write_bytes(jpeg)

    def read(self, name: str, index: int) -> Frame:
        """Return a frame."""
        return decode_jpeg(self._path(name, index).read_bytes())

    def _path(self, name: str, index: int) -> Path:
        return self._folder / name / f"{index:06d}.jpg"


class TarOfJpegs:
    """WebDataset's form, with an index of where each member lies, made by reading all headers once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spans: dict[str, list[tuple[int, int]]] = {}

    def write(self, name: str, frames: Sequence[Frame], jpegs: Sequence[bytes]) -> None:
        """Store a video."""
        with tarfile.open(self._folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for index, jpeg in enumerate(jpegs):
                member = tarfile.TarInfo(f"{index:06d}.jpg")
                member.size = len(jpeg)
                archive.addfile(member, io.BytesIO(jpeg))

    def read(self, name: str, index: int) -> Frame:
        """Return a frame."""
        path = self._folder / f"{name}.tar"
        if name not in self._spans:
            with tarfile.open(path) as archive:
                self._spans[name] = [(member.offset_data, member.size) for member in archive]
        start, size = self._spans[name][index]
        with path.open("rb", buffering=0) as file:
            return decode_jpeg(os.pread(file.fileno(), size, start))


class LmdbOfJpegs:
    """A memory-mapped database a video; kept open."""

    def __init__(self, folder: Path) -> None:
        self._lmdb: Any = importlib.import_module("lmdb")
        self._folder, self._open = folder, dict[str, Any]()

    def write(self, name: str, frames: Sequence[Frame], jpegs: Sequence[bytes]) -> None:
        """Store a video."""
        size = 2 * sum(map(len, jpegs)) + 2**20
        environment = self._lmdb.open(str(self._folder / f"{name}.lmdb"), map_size=size, subdir=False)
        with environment, environment.begin(write=True) as transaction:
            for index, jpeg in enumerate(jpegs):
                transaction.put(index.to_bytes(4, "big"), jpeg)

    def read(self, name: str, index: int) -> Frame:
        """Return a frame."""
        if name not in self._open:
            path = str(self._folder / f"{name}.lmdb")
            self._open[name] = self._lmdb.open(path, subdir=False, readonly=True, lock=False)
        with self._open[name].begin(buffers=True) as transaction:
            return decode_jpeg(transaction.get(index.to_bytes(4, "big")))


class Hdf5OfJpegs:
    """An array of byte strings a video; kept open."""

    def __init__(self, folder: Path) -> None:
        self._h5py: Any = importlib.import_module("h5py")
        self._folder, self._open = folder, dict[str, Any]()

    def write(self, name: str, frames: Sequence[Frame], jpegs: Sequence[bytes]) -> None:
        """Store a video."""
        with self._h5py.File(self._folder / f"{name}.h5", "w") as file:
            kind = self._h5py.vlen_dtype(np.uint8)
            stored = file.create_dataset("frames", (len(jpegs),), dtype=kind)
            for index, jpeg in enumerate(jpegs):
                stored[index] = np.frombuffer(jpeg, np.uint8)

    def read(self, name: str, index: int) -> Frame:
        """Return a frame."""
        if name not in self._open:
            self._open[name] = self._h5py.File(self._folder / f"{name}.h5")["frames"]
        return decode_jpeg(self._open[name][index])


class RawFrames:
    """Pixels as they are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, frames: Sequence[Frame], jpegs: Sequence[bytes]) -> None:
        """Store a video."""
        np.save(self._folder / f"{name}.npy", np.stack(frames))

    def read(self, name: str, index: int) -> Frame:
        """Return a frame."""
        return np.array(np.load(self._folder / f"{name}.npy", mmap_mode="r")[index])


class IntraVideos:
    """H.264 in which every frame is a key frame; kept open, sought by the time stamp it was written with."""

    crf = 18

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sought: SoughtVideos | None = None

    def write(self, name: str, frames: Sequence[Frame], jpegs: Sequence[bytes]) -> None:
        """Store a video."""
        height, width = frames[0].shape[:2]
        with av.open(str(self._folder / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.thread_count = 1
            stream.options = {"crf": str(self.crf), "preset": "medium", "x264-params": "keyint=1"}
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())

    def read(self, name: str, index: int) -> Frame:
        """Return a frame."""
        if self._sought is None:
            self._sought = SoughtVideos({path.stem: path for path in self._folder.glob("*.mp4")})
        return self._sought.read(name, index)


class SmallIntraVideos(IntraVideos):
    """The same with stronger compression."""

    crf = 26


class SoughtVideos:
    """Any video, by seeking to the key frame before and decoding on; a frame that comes next is just decoded."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = dict(paths)
        self._open: dict[str, _OpenVideo] = {}

    def read(self, name: str, index: int) -> Frame:
        """Return a frame."""
        if name not in self._open:
            self._open[name] = _OpenVideo(self._paths[name])
        return self._open[name].read(index)


class _OpenVideo:
    def __init__(self, path: Path) -> None:
        self._container: InputContainer = av.open(str(path))
        self._stream = self._container.streams.video[0]
        # Frame threads would make each seek wait until all of them have been fed.
        self._stream.thread_type = "NONE"
        packets = [packet for packet in self._container.demux(self._stream) if packet.pts is not None]
        self._times = sorted(packet.pts or 0 for packet in packets)
        # Files are sought by decoding time, which is not the time a frame is shown at.
        self._keys = sorted((packet.pts or 0, packet.dts or 0) for packet in packets if packet.is_keyframe)
        self._next = -1

    def read(self, index: int) -> Frame:
        """Return a frame."""
        if index != self._next:
            _, decoding_time = self._keys[bisect_right(self._keys, (self._times[index], math.inf)) - 1]
            self._container.seek(decoding_time, stream=self._stream)
            self._frames = self._container.decode(self._stream)
        frame = next(frame for frame in self._frames if frame.pts == self._times[index])
        self._next = index + 1
        return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
