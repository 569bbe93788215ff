"""CVAT for video 1.1 -> raw data set.

SOURCE is an XML file, or a folder with one a video: NAME.xml, or TASK/annotations.xml beside TASK/images/.

    <annotations><version>1.1</version>
      <meta><task> (or <job>) <name/> <size/> <start_frame/> <stop_frame/> <frame_filter/>
            <original_size><width/><height/></original_size> <source/> </task></meta>
      <track id label> <box frame outside occluded keyframe xtl ytl xbr ybr rotation?/> ... </track> ...
    </annotations>

Frames count from 0 in the video; with a frame_filter (`step=5`) only every 5th is annotated. A track has a
box in each frame up to one that is outside; where frames between two boxes are left out they are interpolated
as CVAT does. A video is named by <source>, or else by its file or task.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from lstfe.data.faults import AnnotationError, fault
from lstfe.data.footage import VIDEO_SUFFIXES, find_footage, probe_footage
from lstfe.data.importers.grammar import MAX_FRAMES, check_frame, parse_integer, parse_number
from lstfe.data.importers.xml_elements import Element, read_elements
from lstfe.data.raw import (
    Bbox,
    ImportOptions,
    RawObject,
    RawVideo,
    check_video_name,
    clip_objects,
    write_raw,
)
from lstfe.data.splits import plan_splits
from lstfe.data.video import DEFAULT_FRAME_RATE, VideoInfo

_SHAPES = ("polygon", "polyline", "points", "cuboid", "skeleton", "ellipse", "mask")


@dataclass(frozen=True, slots=True)
class _Task:
    """What <meta> says of the video."""

    line: int
    name: str
    frames: range
    image_size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Box:
    """One <box>: where its track is in one frame."""

    line: int
    frame_id: int
    bbox: Bbox
    is_outside: bool


def import_cvat(source: Path, destination: Path, options: ImportOptions) -> dict[str, Any]:
    """Write a raw data set from CVAT's XML files and their videos, and return its report (counts by video)."""
    files = _name_files(source)
    parts = plan_splits(options.split, list(files), lists=source / "splits")
    return write_raw(
        destination,
        (_import_task(name, files[name], options) for name in parts),
        parts,
        about={"format": "cvat", "split": options.split},
        options=options,
    )


def _name_files(source: Path) -> dict[str, Path]:
    """Return video name -> its file."""
    paths = (
        [source] if source.is_file() else sorted([*source.glob("*.xml"), *source.glob("*/annotations.xml")])
    )
    if not paths:
        raise AnnotationError(f"{source}: no CVAT file, expected .xml files or folders with annotations.xml")
    named: dict[str, Path] = {}
    for path in paths:
        task = _read_task(path)
        name = task.name
        if name in named:
            raise AnnotationError(
                f"{path}:{task.line}: video {name} is annotated in {named[name]} already, expected one file a video"
            )
        named[name] = path
    return named


def _read_task(path: Path) -> _Task:
    meta = next(read_elements(path, "annotations", "meta"), None)
    if meta is None:
        raise AnnotationError(f"{path}:1: found no <meta> in <annotations>, expected CVAT for video 1.1")
    task = meta.find("task") or meta.find("job")
    if task is None:
        raise AnnotationError(
            f"{meta.where}: found no <task> or <job> in <meta>, expected the export of one; "
            "export the tasks of a project one by one"
        )
    size = task.find("original_size")
    return _Task(
        task.line, _task_name(task, path), _task_frames(task), size.size() if size is not None else (0, 0)
    )


def _task_name(task: Element, path: Path) -> str:
    said = task.find("source")
    if said is not None and Path(said.text.strip()).suffix.lower() in VIDEO_SUFFIXES:
        return check_video_name(PurePosixPath(said.text.strip()).stem, said.where)
    if path.stem != "annotations":
        return check_video_name(path.stem, f"{path}:1")
    return check_video_name(task.child("name").name().replace("/", "__"), task.child("name").where)


def _task_frames(task: Element) -> range:
    """Return the annotated frames, counted in the video."""
    size = task.child("size").integer(low=0, high=MAX_FRAMES)
    start, stop, chosen = (task.find(tag) for tag in ("start_frame", "stop_frame", "frame_filter"))
    step = 1
    if chosen is not None and chosen.text.strip():
        matched = re.fullmatch(r"step\s*=\s*([0-9]{1,6})", chosen.text.strip())
        if matched is None or int(matched[1]) == 0:
            raise fault(chosen.where, chosen.text, "<frame_filter> like step=5")
        step = int(matched[1])
    first = start.integer(low=0, high=MAX_FRAMES) if start is not None and start.text.strip() else 0
    frames = range(first, min(first + size * step, MAX_FRAMES), step)
    if stop is not None and stop.text.strip():
        frames = range(first, min(frames.stop, stop.integer(low=0, high=MAX_FRAMES) + 1), step)
    return frames


def _import_task(name: str, path: Path, options: ImportOptions) -> RawVideo:
    task = _read_task(path)
    info, footage = _examine(task, path, options)
    for last in task.frames[-1:]:
        check_frame(last, info.num_frames, f"{path}:{task.line}: the task's last", name)
    counts = {"boxes_interpolated": 0, "boxes_rotated": 0, "shapes_left_out": 0}
    objects: list[RawObject] = []
    for number, track in enumerate(read_elements(path, "annotations", "track", "image")):
        if track.tag == "image":
            raise fault(track.where, "<image>", "<track>: CVAT for video 1.1, not CVAT for images")
        boxes = _read_boxes(track, task, counts)
        label = track.attribute("label").strip()
        if not label:
            raise fault(track.where, label, "the name of a label")
        shown = [
            (box.frame_id, box.bbox)
            for box in _fill_gaps(boxes, task.frames.step, counts)
            if not box.is_outside
        ]
        objects += [RawObject(frame_id, bbox, label, number) for frame_id, bbox in shown]
    objects.sort(key=lambda item: item.frame_id)
    kept, clipped = clip_objects(objects, (info.height, info.width))
    return RawVideo(name, info, kept, footage, task.frames, counts={**clipped, **counts})


def _read_boxes(track: Element, task: _Task, counts: dict[str, int]) -> list[_Box]:
    boxes: list[_Box] = []
    for child in track.children:
        if child.tag in _SHAPES:
            counts["shapes_left_out"] += 1
        if child.tag != "box":
            continue
        box = _read_box(child, counts)
        if box.frame_id not in task.frames:
            raise fault(child.where, box.frame_id, f"a frame of the task, {task.frames}")
        if boxes and box.frame_id <= boxes[-1].frame_id:
            raise fault(
                child.where, box.frame_id, f"a frame after {boxes[-1].frame_id}: ascending, once each"
            )
        boxes.append(box)
    return boxes


def _read_box(element: Element, counts: dict[str, int]) -> _Box:
    where = element.where
    frame_id = parse_integer(element.attribute("frame"), where, "frame", low=0, high=MAX_FRAMES - 1)
    outside = parse_integer(element.attributes.get("outside", "0"), where, "outside", low=0, high=1)
    x1, y1, x2, y2 = (
        parse_number(element.attribute(key), where, key) for key in ("xtl", "ytl", "xbr", "ybr")
    )
    angle = parse_number(element.attributes.get("rotation", "0"), where, "rotation", low=-360, high=360)
    bbox = (x1, y1, x2 - x1, y2 - y1)
    if angle % 180 and not outside:
        counts["boxes_rotated"] += 1
        bbox = _upright(bbox, math.radians(angle))
    return _Box(element.line, frame_id, bbox, bool(outside))


def _upright(bbox: Bbox, angle: float) -> Bbox:
    """Return the upright box around a box turned about its centre."""
    x, y, width, height = bbox
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    wide, tall = width * cosine + height * sine, width * sine + height * cosine
    return x + (width - wide) / 2, y + (height - tall) / 2, wide, tall


def _fill_gaps(boxes: Sequence[_Box], step: int, counts: dict[str, int]) -> Iterator[_Box]:
    """Yield the boxes, and between two that are further apart than a step their linear interpolation."""
    for before, after in pairwise(boxes):
        yield before
        if before.is_outside:
            continue
        for frame_id in range(before.frame_id + step, after.frame_id, step):
            share = (frame_id - before.frame_id) / (after.frame_id - before.frame_id)
            x, y, width, height = (
                a if after.is_outside else a + share * (b - a)
                for a, b in zip(before.bbox, after.bbox, strict=True)
            )
            counts["boxes_interpolated"] += 1
            yield _Box(before.line, frame_id, (x, y, width, height), False)
    yield from boxes[-1:]


def _examine(task: _Task, path: Path, options: ImportOptions) -> tuple[VideoInfo, Path | None]:
    height, width = task.image_size
    if options.annotations_only:
        if not (height and width):
            height, width = options.image_size or (0, 0)
        length = task.frames[-1] + 1 if task.frames else 0
        return VideoInfo(width, height, length, DEFAULT_FRAME_RATE), None
    pictures = path.parent / "images"
    if options.videos is None and path.stem == "annotations" and pictures.is_dir():
        footage = pictures
    else:
        folders = [options.videos] if options.videos else [path.parent / "videos", path.parent]
        footage = find_footage(folders, task.name)
    info = probe_footage(footage)
    if height and width and (info.height, info.width) != (height, width):
        raise AnnotationError(
            f"{path}:{task.line}: found an original_size of {width}x{height} pixels, "
            f"expected {info.width}x{info.height} as in {footage}"
        )
    return info, footage
