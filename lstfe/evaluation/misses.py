"""Pictures of the worst misses: what the detector did not see, and what it saw where nothing is.

A picture is a strip of three: the frame before, the frame, the frame after; cropped around the object and
enlarged, because a ten-pixel object shows itself only beside its surroundings and by its motion.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.evaluation.encounters import Flags, Ints
from lstfe.evaluation.matching import UNMATCHED, match
from lstfe.evaluation.presets import VOC07
from lstfe.evaluation.records import DetectionRecord, ScoredFrames, scored_frames
from lstfe.types import ByteArray, FloatArray
from lstfe.visualize import DETECTION_COLORS, TARGET_COLOR, draw_boxes

PANEL_PX = 320
"""Width and height of each of a strip's three panels."""
_CROP_SIDES = 6.0  # the crop is this many times as wide as the object,
_SMALLEST_CROP_PX = 72  # but never narrower than this
_SHOWN_SCORE = 0.1
_MOST_SHOWN = 8  # detections a panel
_FALSE_COLOR = (255, 80, 80)
_TITLE_PX = 44
_APART_FRAMES = 15  # between two pictures of one video and kind: neighbouring frames show the same miss


@dataclass(frozen=True, slots=True)
class Miss:
    """One mistake of the detector, or one near mistake."""

    kind: Literal["missed", "weak", "false_positive"]
    """An object that was not found at all; found, but with a low score; a detection where no object is."""
    video: str
    frame_id: int
    bbox: tuple[float, float, float, float]
    """(x, y, width, height), original pixels: of the ground truth or of the false detection."""
    category: str
    score: float | None
    """Of the false detection, or of the detection that found the object; None where none did."""


def write_misses(
    annotations: VideoAnnotations,
    records: Sequence[DetectionRecord],
    store: FrameStore,
    destination: Path,
    *,
    num_pictures: int,
    frame_stride: int = 1,
) -> list[Path]:
    """Write `NN_<kind>_<video>_<frame>.jpg` for each of the worst misses, and index.json; return paths."""
    misses = find_misses(annotations, records, num_misses=num_pictures, frame_stride=frame_stride)
    destination.mkdir(parents=True, exist_ok=True)
    by_frame = records_by_frame(records)
    paths = []
    for number, miss in enumerate(misses, start=1):
        video = miss.video.replace("/", "_")
        paths.append(destination / f"{number:02d}_{miss.kind}_{video}_{miss.frame_id:06d}.jpg")
        Image.fromarray(draw_miss(miss, annotations, by_frame, store)).save(paths[-1], quality=92)
    index = [{"file": path.name, **asdict(miss)} for path, miss in zip(paths, misses, strict=True)]
    index_path = destination / "index.json"
    index_path.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    return [*paths, index_path]


def find_misses(
    annotations: VideoAnnotations,
    records: Sequence[DetectionRecord],
    *,
    num_misses: int,
    frame_stride: int = 1,
) -> list[Miss]:
    """Return the worst misses by `voc07` matching: half objects (missed, weak), half false detections.

    Objects come first: those not found at all, large before small, then those found with the lowest scores;
    then the false detections with the highest scores. Two of a sort in one video are 15 frames apart or more.
    """
    scored = scored_frames(annotations, records, frame_stride=frame_stride)
    found_by, is_false = _match_all(scored)
    missed = _spread_out(_missed(annotations, scored, found_by), num_misses)
    false = _spread_out(_false(records, scored, is_false), num_misses)
    num_false = min(len(false), max(num_misses // 2, num_misses - len(missed)))
    return missed[: num_misses - num_false] + false[:num_false]


def records_by_frame(
    records: Sequence[DetectionRecord],
) -> dict[tuple[str, int], list[DetectionRecord]]:
    """Return the records of each (video, frame_id)."""
    by_frame: dict[tuple[str, int], list[DetectionRecord]] = {}
    for record in records:
        by_frame.setdefault((record.video, record.frame_id), []).append(record)
    return by_frame


def draw_miss(
    miss: Miss,
    annotations: VideoAnnotations,
    records: Mapping[tuple[str, int], Sequence[DetectionRecord]],
    store: FrameStore,
    *,
    with_title: bool = True,
) -> ByteArray:
    """Return the strip of a miss, (H, W, 3) uint8 RGB; `records` are keyed by (video, frame_id)."""
    frame_ids = annotations.frame_ids(miss.video)
    place = frame_ids.index(miss.frame_id)
    panels = [
        draw_panel(miss, annotations, records, store, frame_ids[neighbour])
        if 0 <= neighbour < len(frame_ids)
        else np.full((PANEL_PX, PANEL_PX, 3), 60, np.uint8)
        for neighbour in (place - 1, place, place + 1)
    ]
    gap = np.full((PANEL_PX, 4, 3), 255, np.uint8)
    strip = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    return np.concatenate([_title(miss, strip.shape[1]), strip], axis=0) if with_title else strip


def draw_panel(
    miss: Miss,
    annotations: VideoAnnotations,
    records: Mapping[tuple[str, int], Sequence[DetectionRecord]],
    store: FrameStore,
    frame_id: int,
) -> ByteArray:
    """Return one frame around a miss, boxes drawn: (PANEL_PX, PANEL_PX, 3) uint8 RGB."""
    frame = store.read(miss.video, frame_id)
    left, top, side = _crop(miss.bbox, (frame.shape[0], frame.shape[1]))
    crop = Image.fromarray(frame).crop((left, top, left + side, top + side))
    panel = np.array(crop.resize((PANEL_PX, PANEL_PX), Image.Resampling.BICUBIC))
    targets = _enlarged(annotations.boxes(miss.video, frame_id)[0], left, top, side)
    panel = draw_boxes(panel, targets, [""] * len(targets), [TARGET_COLOR] * len(targets))
    shown = [
        record
        for record in records.get((miss.video, frame_id), ())
        if record.score >= min(_SHOWN_SCORE, miss.score or 1.0) and _meets(record.bbox, left, top, side)
    ]
    shown = sorted(shown, key=lambda record: record.score)[-_MOST_SHOWN:]
    corners = [(x, y, x + width, y + height) for x, y, width, height in (record.bbox for record in shown)]
    boxes = _enlarged(np.array(corners, np.float32).reshape(-1, 4), left, top, side)
    colors = [_FALSE_COLOR if record.bbox == miss.bbox else DETECTION_COLORS[0] for record in shown]
    return draw_boxes(panel, boxes, [f"{record.score:.2f}" for record in shown], colors, margin_px=5)


def miss_text(miss: Miss) -> str:
    """Say in words what is missing or wrong."""
    said = {
        "missed": "not found at IoU 0.5",
        "weak": f"found with score {miss.score or 0:.2f}",
        "false_positive": f"no such object at IoU 0.5, score {miss.score or 0:.2f}",
    }[miss.kind]
    return f"{miss.category} {miss.bbox[2]:.0f}x{miss.bbox[3]:.0f} px, {said}"


def _match_all(scored: ScoredFrames) -> tuple[Ints, Flags]:
    """Return which detection finds each ground truth (G,), or UNMATCHED, and which are false (D,)."""
    truths, detections = scored.truths, scored.detections
    found_by = np.full(len(truths), UNMATCHED)
    is_false = np.ones(len(detections), bool)
    for label in range(1, len(scored.label_names) + 1):
        truth_rows, rows = (np.flatnonzero(column.labels == label) for column in (truths, detections))
        of_label = truths.select(truth_rows)
        matches = match(of_label, detections.select(rows), of_label.crowd[None], VOC07.rule)
        matched = matches.matched_to(0, 0)
        taken = matched != UNMATCHED
        finders = rows[matches.order[matches.candidates[taken]]]
        is_false[finders] = False
        found_by[truth_rows[matched[taken]]] = finders
    return found_by, is_false


def _missed(annotations: VideoAnnotations, scored: ScoredFrames, found_by: Ints) -> Iterator[Miss]:
    """Yield ground truths, the worst first."""
    scores = np.where(found_by == UNMATCHED, -np.inf, 0.0)
    scores[found_by != UNMATCHED] = scored.detections.scores[found_by[found_by != UNMATCHED]]
    for row in np.lexsort((-scored.truths.areas, scores)).tolist():
        if scored.truths.crowd[row]:
            continue
        entry = annotations.annotations[scored.truth_rows[row]]
        video, frame_id = scored.frames[scored.truths.frames[row]]
        category = scored.label_names[scored.truths.labels[row] - 1]
        score = float(scores[row]) if found_by[row] != UNMATCHED else None
        yield Miss("missed" if score is None else "weak", video, frame_id, entry.bbox, category, score)


def _false(records: Sequence[DetectionRecord], scored: ScoredFrames, is_false: Flags) -> Iterator[Miss]:
    """Yield false detections, the highest score first."""
    rows = np.flatnonzero(is_false)
    for row in rows[np.argsort(-scored.detections.scores[rows], kind="stable")].tolist():
        record = records[scored.detection_rows[row]]
        yield Miss(
            "false_positive", record.video, record.frame_id, record.bbox, record.category, float(record.score)
        )


def _spread_out(misses: Iterable[Miss], count: int) -> list[Miss]:
    """Return the first `count` that are not too close in time to an earlier one."""
    chosen: list[Miss] = []
    for miss in misses:
        if len(chosen) == count:
            break
        frame_ids = [other.frame_id for other in chosen if other.video == miss.video]
        if all(abs(frame_id - miss.frame_id) >= _APART_FRAMES for frame_id in frame_ids):
            chosen.append(miss)
    return chosen


def _crop(bbox: tuple[float, float, float, float], image_size: tuple[int, int]) -> tuple[int, int, int]:
    """Return left, top and side of a square around a box, inside the frame where it is large enough."""
    x, y, width, height = bbox
    side = round(min(max(_SMALLEST_CROP_PX, _CROP_SIDES * max(width, height)), max(image_size)))
    left, top = round(x + width / 2 - side / 2), round(y + height / 2 - side / 2)
    return _inside(left, side, image_size[1]), _inside(top, side, image_size[0]), side


def _inside(start: int, side: int, length: int) -> int:
    return min(max(start, 0), length - side) if side <= length else (length - side) // 2


def _meets(bbox: tuple[float, float, float, float], left: int, top: int, side: int) -> bool:
    x, y, width, height = bbox
    return x < left + side and y < top + side and x + width > left and y + height > top


def _enlarged(boxes: FloatArray, left: int, top: int, side: int) -> FloatArray:
    """Move boxes, (N, 4) xyxy, from the frame to the panel that shows the crop."""
    return (boxes - np.array((left, top, left, top), np.float32)) * np.float32(PANEL_PX / side)


def _title(miss: Miss, width: int) -> ByteArray:
    image = Image.new("RGB", (width, _TITLE_PX), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    draw.text((6, 4), f"{miss_text(miss)}: {miss.video}", fill=(0, 0, 0), font=font)
    frames = f"frame {miss.frame_id} between its neighbours; green: ground truth, orange: detections"
    draw.text((6, 22), frames, fill=(90, 90, 90), font=font)
    return np.array(image)
