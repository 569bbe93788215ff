"""FL-Drones text annotations -> raw data set.

One text a video, one line a frame that has objects; integers, pixels, frames counted from 0, x2 and y2
exclusive:

    line  = frame "," n {"," x1 "," y1 "," x2 "," y2}        n times; blanks around commas are allowed
    frame = 0 | 1 | ...                                      ascending

A frame without a line has no object; an empty file belongs to a video without objects. The texts name
neither kinds of objects nor tracks: `category` (drone) is the one kind, tracks come from association.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstfe.data.association import Box
from lstfe.data.faults import AnnotationError, fault
from lstfe.data.footage import find_footage, probe_footage
from lstfe.data.importers.grammar import MAX_FRAMES, MAX_PX, check_frame, parse_integer, read_lines
from lstfe.data.raw import ImportOptions, RawObject, RawVideo, clip_objects, number_instances, write_raw
from lstfe.data.splits import plan_splits
from lstfe.data.video import DEFAULT_FRAME_RATE, VideoInfo

ANNOTATION_FOLDERS = ("fl_drones", "annotations_fl_drone", "annotations_fl")
"""Where a source keeps its texts, in order of preference (drones alone before all kinds of objects)."""

_GRAMMAR = "frame,n,x1,y1,x2,y2[,x1,y1,x2,y2...] in integers"


@dataclass(frozen=True, slots=True)
class FrameLine:
    """One line of a text: the boxes of one frame as written, xyxy pixels."""

    line: int
    frame_id: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the parts of a source lie; `videos` is None for annotations alone."""

    texts: Path
    videos: Path | None


def import_fl_drones(source: Path, destination: Path, options: ImportOptions) -> dict[str, Any]:
    """Write a raw data set from videos and FL-Drones texts, and return its report (counts by video).

    `source` holds texts (fl_drones/, annotations_fl_drone/, annotations_fl/ or loose), videos/ and perhaps
    splits/{train,val,test}.txt. Where `destination` is `source` only annotations are written.
    """
    layout = _find_layout(source, options)
    names = sorted(path.stem for path in layout.texts.glob("*.txt"))
    parts = plan_splits(options.split, names, lists=source / "splits")
    category = options.category or "drone"
    return write_raw(
        destination,
        (_import_video(name, layout, category, options) for name in parts),
        parts,
        about={"format": "fl_drones", "split": options.split},
        options=options,
        categories=[category],
        in_place=destination.exists() and destination.samefile(source),
    )


def read_fl_drones(path: Path) -> list[FrameLine]:
    """Read one text; AnnotationError names the line that breaks the grammar or the order of frames."""
    lines: list[FrameLine] = []
    for number, line in read_lines(path):
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
    if len(fields) < 2:
        raise fault(where, line, _GRAMMAR)
    frame_id = parse_integer(fields[0], where, f"frame of {_GRAMMAR}", low=0, high=MAX_FRAMES - 1)
    num_boxes = parse_integer(fields[1], where, f"n of {_GRAMMAR}", low=0, high=MAX_PX)
    if len(fields) - 2 != 4 * num_boxes:
        raise AnnotationError(
            f"{where}: found {len(fields) - 2} coordinates, expected {4 * num_boxes} "
            f"because the line announces n = {num_boxes} boxes"
        )
    values = [
        parse_integer(part, where, f"coordinate of {_GRAMMAR}", low=-MAX_PX, high=MAX_PX)
        for part in fields[2:]
    ]
    x1, y1, x2, y2 = (values[i::4] for i in range(4))
    return FrameLine(number, frame_id, tuple(zip(x1, y1, x2, y2, strict=True)))


def _import_video(name: str, layout: _Source, category: str, options: ImportOptions) -> RawVideo:
    text = layout.texts / f"{name}.txt"
    lines = read_fl_drones(text)
    if layout.videos is None:
        # Nothing else says how long the video is: it ends with its last object.
        height, width = options.image_size or (0, 0)
        length = lines[-1].frame_id + 1 if lines else 0
        footage, info = None, VideoInfo(width, height, length, DEFAULT_FRAME_RATE)
    else:
        footage = find_footage([layout.videos], name)
        info = probe_footage(footage)
        for line in lines[-1:]:
            check_frame(line.frame_id, info.num_frames, f"{text}:{line.line}", footage.name)
    kept, counts = clip_objects(_objects(lines, category), (info.height, info.width))
    return RawVideo(name, info, number_instances(kept), footage, counts=counts)


def _objects(lines: list[FrameLine], category: str) -> Iterator[RawObject]:
    for line in lines:
        for x1, y1, x2, y2 in line.boxes:
            yield RawObject(line.frame_id, (x1, y1, x2 - x1, y2 - y1), category, 0)


def _find_layout(source: Path, options: ImportOptions) -> _Source:
    if not source.is_dir():
        raise AnnotationError(f"{source}: no such folder, expected videos and FL-Drones texts")
    candidates = [*(source / name for name in ANNOTATION_FOLDERS), source]
    texts = next((folder for folder in candidates if any(folder.glob("*.txt"))), None)
    if texts is None:
        raise AnnotationError(
            f"{source}: holds no annotation texts, expected *.txt there or in {', '.join(ANNOTATION_FOLDERS)}"
        )
    if options.annotations_only:
        return _Source(texts, None)
    videos = options.videos or source / "videos"
    if not videos.is_dir():
        raise AnnotationError(
            f"{videos}: no such folder, expected the videos; name it with --videos DIR, "
            "or import with --annotations-only"
        )
    return _Source(texts, videos)
