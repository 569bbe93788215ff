"""FL-Drones text annotations -> raw data set.

One text a video, one line a frame that has objects; integers, pixels, frames counted from 0, x2 and y2
exclusive:

    frame,n,x1,y1,x2,y2[,x1,y1,x2,y2...]

A frame without a line has no object; an empty file belongs to a video without objects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstfe.data.association import Box, associate
from lstfe.data.coco_video import AnnotationError, clip_bbox
from lstfe.data.folders import new_folder
from lstfe.data.raw import SPLITS, RawObject, RawVideo, find_video, place_video, write_annotations
from lstfe.data.video import VideoInfo, probe_video

ANNOTATION_FOLDERS = ("fl_drones", "annotations_fl_drone", "annotations_fl")
"""Where a source keeps its texts, in order of preference (drones alone before all kinds of objects)."""

_GRAMMAR = "frame,n,x1,y1,x2,y2[,x1,y1,x2,y2...] in integers"
_INTEGER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True, slots=True)
class FrameLine:
    """One line of a text: the boxes of one frame as written, xyxy pixels."""

    line: int
    frame_id: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the parts of a source lie; `splits` is None where it has no lists."""

    texts: Path
    videos: Path
    splits: Path | None


def import_fl_drones(
    source: Path,
    destination: Path,
    *,
    videos: Path | None = None,
    annotations: Path | None = None,
    split: str = "auto",
    category: str = "drone",
    link: bool = False,
) -> dict[str, Any]:
    """Write a raw data set from videos and FL-Drones texts, and return its report (counts by video).

    `source` holds texts (fl_drones/, annotations_fl_drone/, annotations_fl/ or loose), videos/ and perhaps
    splits/{train,val,test}.txt; `annotations` and `videos` name these folders where they lie elsewhere.
    `split`: `half` (the paper's: each video's first half of frames trains, the rest tests), `by-list:DIR`
    (video names in DIR/{train,val,test}.txt), `none` (all train), `auto` (the source's lists, else half).
    `link` hard-links the videos instead of copying. Where `destination` is `source` only annotations are
    written.
    """
    layout = _find_layout(source, videos, annotations)
    chosen = _choose_splits(layout, split)
    imported = [_import_video(name, layout, parts) for name, parts in chosen.items()]
    about = {"format": "fl_drones", "split": split}
    if destination.exists() and destination.samefile(source):
        return write_annotations(destination, imported, [category], about)
    with new_folder(destination, replace=False) as folder:
        (folder / "videos").mkdir()
        for video in imported:
            place_video(video.path, folder / "videos", link=link)
        return write_annotations(folder, imported, [category], about)


def read_fl_drones(path: Path) -> list[FrameLine]:
    """Read one text; AnnotationError names the line that breaks the grammar or the order of frames."""
    lines: list[FrameLine] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AnnotationError(f"{path}: not readable as text ({error})") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parsed = _parse_line(line, f"{path}:{number}", number)
        if lines and parsed.frame_id <= lines[-1].frame_id:
            raise AnnotationError(
                f"{path}:{number}: frame {parsed.frame_id} follows frame {lines[-1].frame_id}, "
                "expected frames in ascending order, one line each"
            )
        lines.append(parsed)
    return lines


def _parse_line(line: str, where: str, number: int) -> FrameLine:
    fields = [part.strip() for part in line.split(",")]
    for part in fields:
        if not _INTEGER.fullmatch(part):
            raise AnnotationError(f"{where}: found {part!r} in {line.strip()!r}, expected {_GRAMMAR}")
    values = [int(part) for part in fields]
    if len(values) < 2 or values[0] < 0 or values[1] < 0:
        raise AnnotationError(
            f"{where}: found {line.strip()!r}, expected {_GRAMMAR}, frame and n not negative"
        )
    coordinates = values[2:]
    if len(coordinates) != 4 * values[1]:
        raise AnnotationError(
            f"{where}: found {len(coordinates)} coordinates, expected {4 * values[1]} "
            f"because the line announces n = {values[1]} boxes"
        )
    x1, y1, x2, y2 = (coordinates[i::4] for i in range(4))
    return FrameLine(number, values[0], tuple(zip(x1, y1, x2, y2, strict=True)))


def _import_video(name: str, layout: _Source, parts: Sequence[str]) -> RawVideo:
    text = layout.texts / f"{name}.txt"
    if not text.is_file():
        raise AnnotationError(
            f"{text}: no such file, expected the annotations of video {name} (may be empty)"
        )
    lines = read_fl_drones(text)
    path = find_video(layout.videos, name)
    info = probe_video(path)
    if lines and lines[-1].frame_id >= info.num_frames:
        raise AnnotationError(
            f"{text}:{lines[-1].line}: frame {lines[-1].frame_id} is past the end of {path.name}, "
            f"which has {info.num_frames} frames counted from 0"
        )
    objects, counts = _clip_lines(lines, info)
    video = RawVideo(name, path, info, objects, counts=counts)
    video.splits = _frames_by_split(parts, info.num_frames)
    return video


def _clip_lines(lines: Sequence[FrameLine], info: VideoInfo) -> tuple[list[RawObject], dict[str, int]]:
    """Return the objects with boxes clipped to the frame, and how many were clipped or dropped."""
    counts = {"boxes_clipped": 0, "boxes_dropped": 0}
    frames: list[tuple[int, list[Box]]] = []
    for line in lines:
        kept: list[Box] = []
        for x1, y1, x2, y2 in line.boxes:
            bbox = clip_bbox((x1, y1, x2 - x1, y2 - y1), (info.height, info.width))
            if bbox is None:
                counts["boxes_dropped"] += 1
                continue
            corners = (bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3])
            counts["boxes_clipped"] += corners != (x1, y1, x2, y2)
            kept.append(corners)
        frames.append((line.frame_id, kept))
    objects = [
        RawObject(frame_id, (x1, y1, x2 - x1, y2 - y1), 1, number)
        for (frame_id, boxes), numbers in zip(frames, associate(frames), strict=True)
        for (x1, y1, x2, y2), number in zip(boxes, numbers, strict=True)
    ]
    return objects, counts


def _frames_by_split(parts: Sequence[str], num_frames: int) -> dict[str, range]:
    """Return split -> frames: the whole video for one split, its halves for two."""
    if len(parts) == 1:
        return {parts[0]: range(num_frames)}
    halves = (range(num_frames // 2), range(num_frames // 2, num_frames))
    return {part: half for part, half in zip(parts, halves, strict=True) if half}


def _find_layout(source: Path, videos: Path | None, annotations: Path | None) -> _Source:
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder, expected videos and FL-Drones texts")
    candidates = [annotations] if annotations else [source / name for name in ANNOTATION_FOLDERS] + [source]
    texts = next((folder for folder in candidates if any(folder.glob("*.txt"))), None)
    if texts is None:
        raise AnnotationError(
            f"{annotations or source}: holds no annotation texts, expected *.txt"
            + ("" if annotations else f" there or in {', '.join(ANNOTATION_FOLDERS)}")
        )
    footage = videos or source / "videos"
    if not footage.is_dir():
        raise AnnotationError(f"{footage}: no such folder, expected the videos; name it with --videos DIR")
    splits = source / "splits"
    return _Source(texts, footage, splits if any(splits.glob("*.txt")) else None)


def _choose_splits(layout: _Source, split: str) -> dict[str, tuple[str, ...]]:
    """Return video name -> its splits; two of them share a video by halves."""
    if split == "auto" and layout.splits is not None:
        return _read_lists(layout.splits)
    if split.startswith("by-list:"):
        return _read_lists(Path(split.removeprefix("by-list:")))
    names = sorted(path.stem for path in layout.texts.glob("*.txt"))
    if split in ("auto", "half"):
        return dict.fromkeys(names, ("train", "test"))
    if split == "none":
        return dict.fromkeys(names, ("train",))
    raise AnnotationError(f"split {split!r} is unknown, expected auto, half, none or by-list:DIR")


def _read_lists(directory: Path) -> dict[str, tuple[str, ...]]:
    chosen: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        path = directory / f"{split}.txt"
        names = path.read_text(encoding="utf-8").split() if path.is_file() else []
        for name in names:
            if name in chosen:
                raise AnnotationError(f"{path}: video {name} is listed already in {chosen[name][0]}.txt")
            chosen[name] = (split,)
    if not chosen:
        raise AnnotationError(
            f"{directory}: lists no video, expected names in train.txt, val.txt or test.txt"
        )
    return chosen
