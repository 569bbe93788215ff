"""Ground truth and detections of any tool, read from JSON straight into columns.

Ground truth: COCO-VID (videos, images{video_id, frame_id}, annotations{instance_id}) or plain COCO without videos.
Detections: what `lstfe detect` writes (video, frame_id, bbox, score, category), or the COCO results list (image_id,
category_id, bbox, score). Other keys are not looked at (but `info.corner_pixels_inside`, as docs/evaluation.md says);
`ignore` neither, as in pycocotools.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lstfe.data.entries import INFO, corner_pixels_inside
from lstfe.evaluation.encounters import Floats, GroundTruths, Ints, ScoredBoxes
from lstfe.evaluation.json_columns import Entries, ScoreFileError, read_json, section, without_collection
from lstfe.evaluation.motion import motion_iou
from lstfe.evaluation.records import ScoredFrames

_UNSCORED = -1
_ROW_FORMS = (
    '{"video", "frame_id", "bbox", "score", "category"} or {"image_id", "category_id", "bbox", "score"}'
)


@dataclass(frozen=True, slots=True)
class ScoredFiles:
    """What two files give to score, and what a reader of the figures should know."""

    frames: ScoredFrames
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _Images:
    """The frames of a ground truth file; places count the scored ones in the order of image ids."""

    places: dict[Hashable, int]
    """Image id -> place, or _UNSCORED."""
    frames: list[tuple[str, int]]
    """(video, frame_id) by place; of an image without a video its file name or id, and 0."""
    keys: dict[Hashable, tuple[str, int]]
    """Image id -> (video, frame_id); empty where the file has no videos."""


def read_scored(ground_truth: Path, detections: Path, *, frame_stride: int = 1) -> ScoredFiles:
    """Read both files; ScoreFileError names the file and the first entry that cannot be scored.

    Scored is every `frame_stride`-th frame of each video, counted from the first that the file lists.
    """
    with without_collection():
        return _read(ground_truth, detections, frame_stride)


def _read(ground_truth: Path, detections: Path, frame_stride: int) -> ScoredFiles:
    content = read_json(ground_truth)
    if not isinstance(content, Mapping):
        raise ScoreFileError(
            f"{ground_truth}: not an object with images, annotations and categories; "
            "a list of detections goes to --detections"
        )
    images = _read_images(content, ground_truth, frame_stride)
    categories = section(content, "categories", ground_truth)
    labels = {category: label for label, category in enumerate(categories.unique("id"), start=1)}
    names = [str(row.get("name", row["id"])) for row in categories.rows]
    objects = section(content, "annotations", ground_truth)
    inside = corner_pixels_inside(content.get(INFO), str(ground_truth))
    truths, truth_rows = _read_truths(objects, images, labels, inside)
    found, rows = _read_detections(detections, images, labels, names)
    frames = ScoredFrames(images.frames, names, truths, truth_rows, found, rows)
    return ScoredFiles(frames, _notes(objects, images, frames))


def _read_images(content: Mapping[str, Any], path: Path, frame_stride: int) -> _Images:
    images = section(content, "images", path)
    ids = images.unique("id")
    # By id, which is pycocotools' order for equal scores; texts after numbers.
    order: list[int] = sorted(range(len(ids)), key=lambda row: (isinstance(ids[row], str), ids[row]))
    if not (images.rows and all("video_id" in row and "frame_id" in row for row in images.rows)):
        if frame_stride > 1:
            raise ScoreFileError(
                f"{path}: its images name no video_id and frame_id, expected a frame stride of 1"
            )
        names = [(str(row.get("file_name", row["id"])), 0) for row in images.rows]
        return _Images({ids[row]: n for n, row in enumerate(order)}, [names[row] for row in order], {})
    frame_ids = images.numbers("frame_id").astype(np.int64).tolist()
    keys = list(zip(_videos_of(content, images), frame_ids, strict=True))
    by_frame = sorted(range(len(keys)), key=keys.__getitem__)
    for row, after in pairwise(by_frame):
        if keys[row] == keys[after]:
            raise images.refusal(after, f"frame {keys[row][1]} of video {keys[row][0]!r} occurs twice")
    wanted: set[int] = set()
    for _, rows in groupby(by_frame, key=lambda row: keys[row][0]):
        wanted.update(list(rows)[::frame_stride])
    scored = [row for row in order if row in wanted]
    places = dict.fromkeys(ids, _UNSCORED) | {ids[row]: n for n, row in enumerate(scored)}
    return _Images(places, [keys[row] for row in scored], dict(zip(ids, keys, strict=True)))


def _videos_of(content: Mapping[str, Any], images: Entries) -> list[str]:
    """Return the name of each image's video."""
    if "videos" not in content:
        return [str(video) for video in images.column("video_id")]
    videos = section(content, "videos", images.path)
    names = [str(name) for name in videos.column("name")]
    numbers = {key: number for number, key in enumerate(videos.unique("id"))}
    found = images.places("video_id", numbers, "an id of the list of videos")
    return [names[number] for number in found.tolist()]


def _read_truths(
    objects: Entries, images: _Images, labels: Mapping[Hashable, int], inside: bool
) -> tuple[GroundTruths, list[int]]:
    boxes = objects.boxes()
    areas = objects.numbers("area", default=0.0, least=0.0)
    truths = GroundTruths(
        frames=objects.places("image_id", images.places, "an id of the list of images"),
        labels=objects.places("category_id", labels, "an id of the list of categories"),
        boxes=boxes,
        areas=np.where(areas == 0, boxes[:, 2] * boxes[:, 3], areas),
        crowd=objects.flags("iscrowd"),
        motion=_motion(objects, images, boxes),
        corner_pixels_inside=inside,
    )
    rows = np.flatnonzero(truths.frames != _UNSCORED)
    return truths.select(rows), rows.tolist()


def _motion(objects: Entries, images: _Images, boxes: Floats) -> Floats | None:
    """Return the motion IoU of all annotations; None without videos, or where no annotation names a track."""
    tracks = [row.get("instance_id", row.get("track_id")) for row in objects.rows]
    if not images.keys or not any(tracks):  # 0 throughout is what a file without tracks may say
        return None
    numbers = {track: number for number, track in enumerate(dict.fromkeys(map(str, tracks)))}
    videos = {
        name: number for number, name in enumerate(dict.fromkeys(name for name, _ in images.keys.values()))
    }
    keys = [images.keys[image] for image in objects.column("image_id")]
    return motion_iou(
        np.array([videos[name] for name, _ in keys], np.int64),
        np.array([-1 if track is None else numbers[str(track)] for track in tracks], np.int64),
        np.array([frame_id for _, frame_id in keys], np.int64),
        boxes,
    )


def _read_detections(
    path: Path, images: _Images, labels: Mapping[Hashable, int], names: Sequence[str]
) -> tuple[ScoredBoxes, list[int]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise ScoreFileError(f"{path}: not a list of detections, expected rows {_ROW_FORMS}")
    found = Entries(path, "detection", content)
    first = content[0] if content and isinstance(content[0], Mapping) else {}
    if "image_id" in first or not content:
        frames = found.places("image_id", images.places, "an id of the ground truth's images")
        found_labels = found.places("category_id", labels, "an id of the ground truth's categories")
    else:
        frames = _frames_by_video(found, images)
        by_name = {name: label for label, name in enumerate(names, start=1)}
        found_labels = found.places("category", by_name, f"one of {', '.join(names)}")
    detections = ScoredBoxes(frames, found_labels, found.boxes(), found.numbers("score"))
    rows = np.flatnonzero(frames != _UNSCORED)
    return detections.select(rows), rows.tolist()


def _frames_by_video(found: Entries, images: _Images) -> Ints:
    """Look up (video, frame_id) of each detection."""
    if not images.keys:
        raise ScoreFileError(
            f"{found.path}: names videos, which the ground truth has not, expected rows {_ROW_FORMS}"
        )
    places: dict[str, dict[int, int]] = {}
    for image, (video, frame_id) in images.keys.items():
        places.setdefault(video, {})[frame_id] = images.places[image]
    videos, frame_ids = found.column("video"), found.column("frame_id")
    try:
        pairs = zip(videos, frame_ids, strict=True)
        return np.fromiter((places[video][frame_id] for video, frame_id in pairs), np.int64, len(found))
    except (KeyError, TypeError):
        for number, (video, frame_id) in enumerate(zip(videos, frame_ids, strict=True)):
            if not isinstance(video, str) or video not in places:
                some = ", ".join(sorted(places)[:5])
                raise found.refusal(
                    number, f"video {video!r} is unknown, expected one of {some}, ..."
                ) from None
            if not isinstance(frame_id, int) or frame_id not in places[video]:
                held = f"{min(places[video])}..{max(places[video])}"
                raise found.refusal(
                    number, f"frame_id {frame_id!r} of video {video!r} is unknown, expected one of {held}"
                ) from None
        raise


def _notes(objects: Entries, images: _Images, scored: ScoredFrames) -> list[str]:
    notes = []
    motion = scored.truths.motion
    if len(objects) and (motion is None or np.isnan(motion).all()):
        missing = (
            "track (instance_id) over two frames" if images.keys else "video_id and frame_id of its images"
        )
        notes.append(f"the ground truth names no {missing}: figures by motion are null")
    without_area = sum(not row.get("area") for row in objects.rows)
    if without_area:
        notes.append(f"{without_area} annotations have no area: that of their box stands in")
    return [*notes, *_note_on_strays(scored)] if images.keys else notes


def _note_on_strays(scored: ScoredFrames) -> list[str]:
    with_objects = {scored.frames[frame][0] for frame in set(scored.truths.frames.tolist())}
    places, counts = np.unique(scored.detections.frames, return_counts=True)
    elsewhere = [
        (scored.frames[place][0], count)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True)
        if scored.frames[place][0] not in with_objects
    ]
    if not elsewhere:
        return []
    number, videos = sum(count for _, count in elsewhere), len({video for video, _ in elsewhere})
    return [f"{number} detections are on {videos} videos without any object: all count as false"]
