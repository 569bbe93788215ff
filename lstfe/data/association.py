"""Which boxes of successive frames are the same object, for formats without track ids."""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""

MAX_MISSING_FRAMES = 10
"""An object that was not seen for longer comes back as a new one."""
MAX_MOVE_PX = 8.0
"""How far a centre may move in one frame, on top of its box's longer side."""


def associate(frames: Sequence[tuple[int, Sequence[Box]]]) -> list[list[int]]:
    """Return an object number (0-based, in order of appearance) for each box of each (frame_id, boxes).

    Greedy from frame to frame: overlapping pairs first, then the nearest centres within reach.
    """
    last_seen: dict[int, tuple[int, Box]] = {}
    num_objects = 0
    numbers: list[list[int]] = []
    for frame_id, boxes in frames:
        recent = {k: v for k, v in last_seen.items() if frame_id - v[0] <= MAX_MISSING_FRAMES}
        matched = _match(recent, frame_id, boxes)
        row = []
        for place, box in enumerate(boxes):
            if place not in matched:
                matched[place] = num_objects
                num_objects += 1
            row.append(matched[place])
            last_seen[matched[place]] = (frame_id, box)
        numbers.append(row)
    return numbers


def _match(recent: dict[int, tuple[int, Box]], frame_id: int, boxes: Sequence[Box]) -> dict[int, int]:
    """Return place in `boxes` -> object number, each object at most once."""
    pairs = []
    for number, (seen_at, old) in recent.items():
        for place, box in enumerate(boxes):
            distance = _centre_distance(old, box)
            side = max(old[2] - old[0], old[3] - old[1], box[2] - box[0], box[3] - box[1])
            if distance <= side + MAX_MOVE_PX * (frame_id - seen_at):
                pairs.append((-_iou(old, box), distance, number, place))
    matched: dict[int, int] = {}
    for _, _, number, place in sorted(pairs):
        if place not in matched and number not in matched.values():
            matched[place] = number
    return matched


def _iou(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return width * height / (areas - width * height)


def _centre_distance(first: Box, second: Box) -> float:
    dx = (first[0] + first[2] - second[0] - second[2]) / 2
    dy = (first[1] + first[3] - second[1] - second[3]) / 2
    return float((dx * dx + dy * dy) ** 0.5)
