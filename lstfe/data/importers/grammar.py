"""The words that all formats are made of: lines, integers, numbers; faults are named by file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lstfe.data.faults import AnnotationError, fault

MAX_FRAMES = 1_000_000
"""A video has fewer frames; at 30 a second that is nine hours."""
MAX_PX = 1_000_000
"""No coordinate lies further from the frame's corner, in pixels."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,20}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line without its end) of a UTF-8 text; blank lines are left out."""
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield number, text
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}:{number}: not readable as text ({error}), expected UTF-8") from None
    except OSError as error:
        raise AnnotationError(f"{path}: not readable ({error.strerror}), expected a text file") from None


def parse_integer(text: str, where: str, what: str, *, low: int, high: int) -> int:
    """Return an integer of low..high."""
    if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
        raise fault(where, text, f"{what}, an integer from {low} to {high}")
    return int(text)


def parse_number(text: str, where: str, what: str, *, low: float = -MAX_PX, high: float = MAX_PX) -> float:
    """Return a decimal number of low..high; whole ones as int, so that they are written as they came."""
    if not _NUMBER.fullmatch(text) or not low <= float(text) <= high:
        raise fault(where, text, f"{what}, a number from {low} to {high}")
    return int(text) if _INTEGER.fullmatch(text) else float(text)


def check_frame(frame_id: int, num_frames: int, where: str, video: str) -> int:
    """Return the frame; AnnotationError where it lies past the end of its video."""
    if frame_id >= num_frames:
        raise AnnotationError(
            f"{where}: frame {frame_id} is past the end of {video}, "
            f"expected less than its {num_frames} frames, counted from 0"
        )
    return frame_id
