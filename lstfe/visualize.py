"""Drawing: (frame, boxes) -> new frame. Lines go around an object, not over it: ten pixels stay visible.

Frames are (H, W, 3) uint8 RGB. Free of torch, so that the deployed runtime can draw.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lstfe.types import ByteArray, Detections, FloatArray

Color = tuple[int, int, int]

TARGET_COLOR: Color = (80, 230, 80)
# Well apart from each other, from green and from sky; labels past the end start again.
DETECTION_COLORS: tuple[Color, ...] = (
    (255, 140, 0),
    (255, 60, 160),
    (80, 190, 255),
    (250, 230, 60),
    (190, 120, 255),
)
INSTANCE_COLORS: tuple[Color, ...] = (TARGET_COLOR, *DETECTION_COLORS)
"""By instance number; numbers past the end start again."""
_CAPTION_GROUND: Color = (24, 24, 24)
_CAPTION_COLOR: Color = (235, 235, 235)
_MARGIN_PX = 3
"""Free pixels between an object's box and the line around it."""


def draw_detections(
    frame: ByteArray, detections: Detections, label_names: Sequence[str], score_threshold: float = 0.3
) -> ByteArray:
    """Return a copy of the frame with a box, name and score around each detection of at least that score."""
    shown = np.flatnonzero(detections.scores >= score_threshold)[::-1]  # the best is drawn last, on top
    boxes, labels = detections.boxes[shown], detections.labels[shown]
    names = [
        f"{label_names[label - 1]} {score:.2f}"
        for label, score in zip(labels.tolist(), detections.scores[shown].tolist(), strict=True)
    ]
    colors = [DETECTION_COLORS[(label - 1) % len(DETECTION_COLORS)] for label in labels.tolist()]
    return draw_boxes(frame, boxes, names, colors)


def draw_instances(
    frame: ByteArray, boxes: FloatArray, names: Sequence[str], instances: Sequence[int]
) -> ByteArray:
    """Return a copy of the frame with a named box around each object, one colour an instance; boxes (N, 4) xyxy."""
    colors = [INSTANCE_COLORS[instance % len(INSTANCE_COLORS)] for instance in instances]
    return draw_boxes(frame, boxes, names, colors)


def append_caption(frame: ByteArray, text: str, *, font_px: int | None = None) -> ByteArray:
    """Return the frame above lines of text: (H, W, 3) -> (H + h, W, 3); h depends on H, W and the lines alone."""
    width = frame.shape[1]
    size_px = font_px or _font_px(frame)
    strip = Image.new("RGB", (width, (size_px + 4) * (text.count("\n") + 1) + 4), _CAPTION_GROUND)
    draw = ImageDraw.Draw(strip)
    for line, words in enumerate(text.split("\n")):
        draw.text((4, 2 + line * (size_px + 4)), words, fill=_CAPTION_COLOR, font=_font(size_px))
    return np.concatenate([frame, np.asarray(strip, np.uint8)], axis=0)


def draw_boxes(
    frame: ByteArray,
    boxes: FloatArray,
    names: Sequence[str],
    colors: Sequence[Color],
    *,
    margin_px: int = _MARGIN_PX,
) -> ByteArray:
    """Return a copy of the frame with lines `margin_px` outside of each box, (N, 4) xyxy, and a text each."""
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    line_px = max(1, round(min(frame.shape[:2]) / 540))
    font = _font(_font_px(frame))
    for box, name, color in zip(boxes.tolist(), names, colors, strict=True):
        outline = _outline(box, margin_px + line_px, (frame.shape[0], frame.shape[1]))
        draw.rectangle(outline, outline=color, width=line_px)
        if name:
            _write(draw, name, outline, color, font, image.size)
    return np.array(image)


def _outline(box: Sequence[float], distance: int, image_size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the pixels of the line around a box (x1, y1, x2, y2), both ends included, inside the image."""
    height, width = image_size
    left, top = (math.floor(value) - distance for value in box[:2])
    right, bottom = (math.ceil(value) - 1 + distance for value in box[2:])
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    return left, top, min(max(right, left), width - 1), min(max(bottom, top), height - 1)


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    outline: tuple[int, int, int, int],
    color: Color,
    font: _Font,
    image_size: tuple[int, int],
) -> None:
    """Write on a dark ground above the outline, or below it, moved into the image; `image_size` is Pillow's."""
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = int(right - left) + 3, int(bottom - top) + 3
    x = min(max(outline[0], 0), max(image_size[0] - width, 0))
    places = (outline[1] - height - 1, outline[3] + 2)
    y = next((y for y in places if 0 <= y <= image_size[1] - height), max(0, image_size[1] - height))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=(0, 0, 0))
    draw.text((x + 1 - left, y + 1 - top), text, fill=color, font=font)


def _font_px(frame: ByteArray) -> int:
    shorter_px: int = min(frame.shape[:2])
    return max(10, round(shorter_px / 45))


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.cache
def _font(size_px: int) -> _Font:
    return ImageFont.load_default(size_px)
