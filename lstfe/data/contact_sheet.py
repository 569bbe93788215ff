"""A contact sheet: enlarged crops of a video's smallest objects, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from lstfe.types import ByteArray
from lstfe.visualize import append_caption, draw_instances

CROP_PX = 192
"""Width and height of an enlarged crop."""
NUM_COLUMNS = 6
_CROP_SIDES = 3.0  # the crop is this many times as wide as the object,
_SMALLEST_CROP_PX = 32  # but never narrower than this
_FONT_PX = 13
_GAP_PX = 4
_GAP_GRAY = 90
# Frames between two crops of one instance: first one crop an instance, then half a second apart, then less.
_FRAME_GAPS = (math.inf, 15, 7, 3, 1, 0)


@dataclass(frozen=True, slots=True)
class VideoObject:
    """One object in one frame of a video."""

    frame_id: int
    bbox: tuple[float, float, float, float]
    """(x, y, width, height) in pixels of the video, inside the frame."""
    category: str
    instance: int
    """As numbered in the annotations of its split."""
    split: str
    is_crowd: bool = False

    @property
    def side_px(self) -> float:
        """Square root of the box's area."""
        return math.sqrt(self.bbox[2] * self.bbox[3])

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2)."""
        x, y, width, height = self.bbox
        return x, y, x + width, y + height

    @property
    def track(self) -> tuple[str, int]:
        """Names an instance of the video: the splits number theirs independently."""
        return self.split, self.instance

    @property
    def name(self) -> str:
        """Category and instance number."""
        return f"{self.category} {self.instance}{' (crowd)' if self.is_crowd else ''}"


def pick_smallest(objects: Iterable[VideoObject], count: int) -> list[VideoObject]:
    """Return at most `count` of the smallest objects, smallest first, spread over instances and time.

    The smallest of each instance comes first, then others 15 frames or more from those of their instance, and
    closer ones only where there are no others. Crowds are left out.
    """
    ordered = sorted((item for item in objects if not item.is_crowd), key=_by_size)
    picked: set[VideoObject] = set()
    frames: dict[tuple[str, int], list[int]] = {}
    for gap in _FRAME_GAPS:
        for item in ordered:
            if len(picked) == count:
                break
            others = frames.setdefault(item.track, [])
            if item not in picked and all(abs(item.frame_id - frame_id) >= gap for frame_id in others):
                picked.add(item)
                others.append(item.frame_id)
    return sorted(picked, key=_by_size)


def _by_size(item: VideoObject) -> tuple[float, int, tuple[float, ...]]:
    return item.side_px, item.frame_id, item.bbox


def draw_crop(frame: ByteArray, item: VideoObject) -> ByteArray:
    """Return an object enlarged amid its surroundings, over its frame, size and name: (H, W, 3) -> (h, 192, 3)."""
    left, top, side = _window(item, (frame.shape[0], frame.shape[1]))
    crop = Image.fromarray(frame).crop((left, top, left + side, top + side))
    # Enlarged pixels stay squares: what is smoothed is hard to tell from what is blurred.
    way = Image.Resampling.NEAREST if side <= CROP_PX else Image.Resampling.BOX
    panel = np.asarray(crop.resize((CROP_PX, CROP_PX), way), np.uint8)
    box = (np.array([item.corners], np.float32) - np.array([left, top] * 2, np.float32)) * (CROP_PX / side)
    width, height = (f"{round(length, 1):g}" for length in item.bbox[2:])
    text = f"frame {item.frame_id}, {width}x{height} px\n{item.name}, {item.split}"
    return append_caption(draw_instances(panel, box, [""], [item.instance]), text, font_px=_FONT_PX)


def _window(item: VideoObject, image_size: tuple[int, int]) -> tuple[int, int, int]:
    """Return (left, top, side) of a square around an object, moved into the frame where it fits in."""
    x1, y1, x2, y2 = item.corners
    wanted = max(_SMALLEST_CROP_PX, math.ceil(_CROP_SIDES * max(item.bbox[2:])))
    side = min(wanted, max(image_size))
    height, width = image_size
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    return _moved_inside(left, side, width), _moved_inside(top, side, height), side


def _moved_inside(start: int, length: int, limit: int) -> int:
    return min(max(start, 0), limit - length) if length <= limit else (limit - length) // 2


def join_crops(crops: Sequence[ByteArray]) -> ByteArray:
    """Return one image of crops of one size, (h, w, 3) each, row by row; at least one."""
    height, width = crops[0].shape[:2]
    num_columns = min(NUM_COLUMNS, len(crops))
    num_rows = math.ceil(len(crops) / num_columns)
    sheet_size = (num_rows * (height + _GAP_PX) + _GAP_PX, num_columns * (width + _GAP_PX) + _GAP_PX, 3)
    sheet = np.full(sheet_size, _GAP_GRAY, np.uint8)
    for place, crop in enumerate(crops):
        row, column = divmod(place, num_columns)
        top, left = _GAP_PX + row * (height + _GAP_PX), _GAP_PX + column * (width + _GAP_PX)
        sheet[top : top + height, left : left + width] = crop
    return sheet
