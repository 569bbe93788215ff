"""The service's side of `deploy.service.decoder`: frames of an untrusted video, decoded in another process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np

import lstfe
from deploy.service.decoder import DONE, ERROR, FRAME, HEADER, INFO, VideoLimits
from lstfe.data.video import VideoError
from lstfe.types import ByteArray

_ROOT = Path(lstfe.__file__).parents[1]


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What was counted by decoding."""

    num_frames: int
    width: int
    height: int
    frame_rate: float
    """Frames per second."""


class DecodedVideo:
    """Context manager around a decoder process; `stop` may be called by any thread and ends the reading.

    Use in this order: `facts`, `pool_frames`, `frames`. Errors name the video by its label, never by its path.
    """

    def __init__(self, path: Path, label: str, limits: VideoLimits) -> None:
        self._path, self._label = path, label
        self._stopped_because: str | None = None
        self._lock = threading.Lock()
        # Nothing of the service's environment, which may hold tokens, reaches the process; nor do its signals.
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", "deploy.service.decoder", str(path), json.dumps(asdict(limits))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                "PYTHONPATH": str(_ROOT),
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                # Each of FFmpeg's threads would reserve address space of its own, of which there is a bound.
                "MALLOC_ARENA_MAX": "1",
            },
            cwd=path.parent,
            start_new_session=True,
        )
        self._facts: VideoFacts | None = None

    def facts(self) -> VideoFacts:
        """Decode the video to its end once; raises VideoError for one that cannot be, or is over a limit."""
        tag, content = self._message()
        if tag != INFO:
            raise self._broken_off()
        self._facts = VideoFacts(**json.loads(content))
        return self._facts

    def pool_frames(self, indices: Sequence[int]) -> Iterator[tuple[int, ByteArray]]:
        """Yield some frames with their index, (H, W, 3) uint8 RGB; must be asked for, and read, once."""
        wanted = sorted(set(indices))
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
            self._process.stdin.close()
        except OSError:
            raise self._broken_off() from None
        for index in wanted:
            frame = self._frame()
            if frame is None:
                raise VideoError(
                    f"{self._label}: frame {index} was counted but is not there on a second reading"
                )
            yield index, frame

    def frames(self) -> Iterator[ByteArray]:
        """Yield all frames, (H, W, 3) uint8 RGB."""
        while (frame := self._frame()) is not None:
            yield frame

    def stop(self, reason: str) -> None:
        """Kill the decoder; a reader gets a VideoError of this reason."""
        with self._lock:
            self._stopped_because = self._stopped_because or reason
        self._process.kill()

    def __enter__(self) -> DecodedVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except OSError:  # a line that the decoder never read
                    continue
        self._process.wait()

    def _frame(self) -> ByteArray | None:
        assert self._facts is not None, "facts come first"
        tag, content = self._message()
        if tag == DONE:
            return None
        shape = (self._facts.height, self._facts.width, 3)
        if tag != FRAME or len(content) != shape[0] * shape[1] * 3:
            raise VideoError(
                f"{self._label}: not the same on a second reading, expected {shape[1]}x{shape[0]} frames"
            )
        return np.frombuffer(content, np.uint8).reshape(shape)

    def _message(self) -> tuple[bytes, bytearray]:
        output = cast(BinaryIO, self._process.stdout)
        tag, length = HEADER.unpack(self._read(output, HEADER.size))
        content = self._read(output, length)
        if tag == ERROR:
            message = content.decode(errors="replace").replace(str(self._path), self._label)
            raise VideoError(self._stopped_because or message)
        return tag, content

    def _read(self, output: BinaryIO, length: int) -> bytearray:
        content = bytearray(length)
        view, filled = memoryview(content), 0
        while filled < length:
            count = output.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise self._broken_off()
            filled += count
        return content

    def _broken_off(self) -> VideoError:
        if self._stopped_because is not None:
            return VideoError(f"{self._label}: {self._stopped_because}")
        code = self._process.wait()
        return VideoError(
            f"{self._label}: its decoder ended with code {code}; the file is damaged, replace it"
        )
