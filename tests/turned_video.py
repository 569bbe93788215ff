"""Videos as phones write them: filmed along the sensor's axes, with a display matrix that turns them upright."""

from __future__ import annotations

import struct
from pathlib import Path

ONE = 1 << 16
TURNS = {
    "none": (ONE, 0, 0, ONE),
    "clockwise": (0, ONE, -ONE, 0),
    "half": (-ONE, 0, 0, -ONE),
    "counterclockwise": (0, -ONE, ONE, 0),
    "mirrored": (-ONE, 0, 0, ONE),
    "upside_down": (ONE, 0, 0, -ONE),
    "transposed": (0, ONE, ONE, 0),
}
"""Name -> a, b, c, d of ISO/IEC 14496-12, 6.2.2: shown x = a x + c y, shown y = b x + d y, in units of ONE."""


def turn_video(path: Path, turn: str) -> Path:
    """Write a display matrix into the track header (version 0) of an mp4; its place does not count, so it is 0."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40
    a, b, c, d = TURNS[turn]
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path
