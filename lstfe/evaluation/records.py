"""Detections as records (the rows of detections.json), and as the columns that the matcher works on."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from lstfe.data.coco_video import VideoAnnotations
from lstfe.errors import UserError
from lstfe.evaluation.encounters import Floats, GroundTruths, ScoredBoxes
from lstfe.evaluation.motion import motion_iou
from lstfe.types import Detections


class DetectionError(UserError):
    """A detection cannot be scored; the message names the entry."""


@dataclass(frozen=True, slots=True)
class DetectionRecord:
    """One detection: a row of detections.json."""

    video: str
    frame_id: int
    """0-based."""
    bbox: tuple[float, float, float, float]
    """(x, y, width, height), original pixels."""
    score: float
    category: str


@dataclass(frozen=True, slots=True)
class ScoredFrames:
    """Ground truths and detections of the frames that are scored, as columns."""

    frames: list[tuple[str, int]]
    """(video, frame_id) by place; columns name frames by this place."""
    label_names: list[str]
    truths: GroundTruths
    truth_rows: list[int]
    """Place of each ground truth in the annotations' own list."""
    detections: ScoredBoxes
    detection_rows: list[int]
    """Place of each detection in the list of records."""


def to_records(
    detections: Detections, *, video: str, frame_id: int, label_names: Sequence[str]
) -> list[DetectionRecord]:
    """Return a frame's detections as records: boxes to 1/1000 pixel, scores to six places."""
    boxes = detections.boxes.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    rows = zip(
        np.round(boxes, 3).tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True
    )
    return [
        DetectionRecord(video, frame_id, (x, y, width, height), round(score, 6), label_names[label - 1])
        for (x, y, width, height), score, label in rows
    ]


def load_detections(path: Path | str) -> list[DetectionRecord]:
    """Read detections.json; DetectionError names the first entry that has the wrong form."""
    path = Path(path)
    try:
        return TypeAdapter(list[DetectionRecord]).validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise DetectionError(f"{path}: not readable: {error.strerror}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = "".join(
            f" entry {part}:" if isinstance(part, int) else f" {part}:" for part in fault["loc"][:2]
        )
        raise DetectionError(
            f"{path}:{place} {fault['msg']}, found {str(fault['input'])[:80]!r}; expected a list of "
            '{"video", "frame_id", "bbox": [x, y, width, height], "score", "category"}'
        ) from None


def save_detections(records: Sequence[DetectionRecord], path: Path | str) -> None:
    """Write detections.json, one record a line."""
    lines = (
        json.dumps(
            {
                "video": record.video,
                "frame_id": record.frame_id,
                "bbox": list(record.bbox),
                "score": record.score,
                "category": record.category,
            }
        )
        for record in records
    )
    Path(path).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def scored_frames(
    annotations: VideoAnnotations,
    records: Sequence[DetectionRecord],
    *,
    frame_stride: int = 1,
    frames: Mapping[str, Collection[int]] | None = None,
) -> ScoredFrames:
    """Put what is scored into columns; DetectionError where a record names something unknown or impossible.

    Scored is every `frame_stride`-th of each video's frames, counted from the first one that the split has;
    with `frames` (frame_ids by video) only those of them. Records of other frames are checked and left out.
    """
    places = _places(annotations, frame_stride, frames)
    order = sorted(
        (place, video, frame) for video, of in places.items() for frame, place in of.items() if place >= 0
    )
    truths, truth_rows = _truths(annotations, places)
    detections, detection_rows = _detections(annotations, records, places)
    names = [(video, frame) for _, video, frame in order]
    return ScoredFrames(names, annotations.label_names, truths, truth_rows, detections, detection_rows)


_NOT_SCORED = -1


def _places(
    annotations: VideoAnnotations, frame_stride: int, frames: Mapping[str, Collection[int]] | None
) -> dict[str, dict[int, int]]:
    """Video -> frame_id -> place, in the order of image ids (pycocotools' order for equal scores)."""
    scored: list[tuple[int, str, int]] = []
    places: dict[str, dict[int, int]] = {}
    for video, images in annotations.images_by_video.items():
        places[video] = {image.frame_id: _NOT_SCORED for image in images}
        wanted = images[::frame_stride]
        if frames is not None:
            asked_for = set(frames.get(video, ()))
            wanted = [image for image in wanted if image.frame_id in asked_for]
        scored += [(image.id, video, image.frame_id) for image in wanted]
    for place, (_, video, frame_id) in enumerate(sorted(scored)):
        places[video][frame_id] = place
    return places


def _truths(
    annotations: VideoAnnotations, places: dict[str, dict[int, int]]
) -> tuple[GroundTruths, list[int]]:
    names = {video.id: video.name for video in annotations.videos}
    of_image = {image.id: places[names[image.video_id]][image.frame_id] for image in annotations.images}
    rows = [row for row, entry in enumerate(annotations.annotations) if of_image[entry.image_id] >= 0]
    entries = [annotations.annotations[row] for row in rows]
    # An annotation without `area` reads as 0, which no box can have: its own width x height stands in.
    areas = [entry.area or entry.bbox[2] * entry.bbox[3] for entry in entries]
    truths = GroundTruths(
        frames=np.array([of_image[entry.image_id] for entry in entries], np.int64),
        labels=np.array([annotations.labels[entry.category_id] for entry in entries], np.int64),
        boxes=np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4),
        areas=np.array(areas, np.float64),
        crowd=np.array([entry.iscrowd for entry in entries], bool),
        motion=_motion(annotations, rows),
        corner_pixels_inside=annotations.corner_pixels_inside,
    )
    return truths, rows


def _motion(annotations: VideoAnnotations, rows: list[int]) -> Floats | None:
    """Return the motion IoU of some annotations, measured over all; None where no annotation names a track."""
    entries = annotations.annotations
    tracks = np.array([entry.instance_id for entry in entries], np.int64)
    if not tracks.any():  # 0 is what stands where the file said nothing
        return None
    frame_ids = {image.id: image.frame_id for image in annotations.images}
    return motion_iou(
        np.array([entry.video_id for entry in entries], np.int64),
        tracks,
        np.array([frame_ids[entry.image_id] for entry in entries], np.int64),
        np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4),
    )[rows]


def _detections(
    annotations: VideoAnnotations, records: Sequence[DetectionRecord], places: dict[str, dict[int, int]]
) -> tuple[ScoredBoxes, list[int]]:
    labels = {name: label for label, name in enumerate(annotations.label_names, start=1)}
    try:
        detections = ScoredBoxes(
            frames=np.array([places[record.video][record.frame_id] for record in records], np.int64),
            labels=np.array([labels[record.category] for record in records], np.int64),
            boxes=np.array([record.bbox for record in records], np.float64).reshape(-1, 4),
            scores=np.array([record.score for record in records], np.float64),
        )
    except (KeyError, ValueError, TypeError):
        _refuse_first(records, places, labels)
        raise
    possible = np.isfinite(detections.boxes).all(axis=1) & (detections.boxes[:, 2:] >= 0).all(axis=1)
    if not (possible & np.isfinite(detections.scores)).all():
        _refuse_first(records, places, labels)
    rows = np.flatnonzero(detections.frames != _NOT_SCORED)
    return detections.select(rows), rows.tolist()


def _refuse_first(
    records: Sequence[DetectionRecord], places: dict[str, dict[int, int]], labels: dict[str, int]
) -> None:
    """Raise a DetectionError for the first record that cannot be scored."""
    for number, record in enumerate(records):
        fault = _fault(record, places, labels)
        if fault is not None:
            raise DetectionError(
                f"detection {number} (video {record.video!r}, frame {record.frame_id}): {fault}"
            )


def _fault(record: DetectionRecord, places: dict[str, dict[int, int]], labels: dict[str, int]) -> str | None:
    if record.video not in places:
        return f"the ground truth has no such video, expected one of {', '.join(sorted(places)[:5])}, ..."
    frames = places[record.video]
    if record.frame_id not in frames:
        held = f"{min(frames)}..{max(frames)}" if frames else "no frames"
        return f"the ground truth has no such frame, expected one of {held} (0-based)"
    if record.category not in labels:
        return f"unknown category {record.category!r}, expected one of {', '.join(labels)}"
    if len(record.bbox) != 4 or not all(math.isfinite(value) for value in record.bbox):
        return f"bbox {list(record.bbox)} is not four finite numbers [x, y, width, height]"
    if min(record.bbox[2:]) < 0:
        return f"bbox {list(record.bbox)} has a negative size, expected [x, y, width, height] in pixels"
    if not math.isfinite(record.score):
        return f"score {record.score} is not a finite number"
    return None
