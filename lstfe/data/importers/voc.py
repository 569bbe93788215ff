"""PASCAL VOC XML, one file a frame and one folder a video -> raw data set.

    SOURCE/Annotations/VIDEO/FRAME.xml  with pictures in SOURCE/JPEGImages/VIDEO/, or a video or picture
                                        folder called VIDEO in SOURCE/videos/ or --videos
    SOURCE/VIDEO/FRAME.xml              beside the pictures

lstfe/data/importers/frame_xml.py has the grammar of a file. Corners count pixels from 1 and belong to the box,
as VOC defines them. A frame is the picture with the same name before the suffix; in a video file, the number
at the end of FRAME, from 0. A frame without a file is not annotated, a file without objects is a frame
without objects. Tracks are <trackid> where all objects of a video have one, else association.
Objects that are <difficult> become crowds: neither right nor wrong to find, as in the VOC devkit.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lstfe.data.faults import AnnotationError, fault
from lstfe.data.footage import (
    PICTURE_SUFFIXES,
    find_footage,
    list_pictures,
    natural_order,
    probe_footage,
)
from lstfe.data.importers.frame_xml import FrameXml, read_frame_xml
from lstfe.data.importers.grammar import MAX_FRAMES, check_frame, parse_integer
from lstfe.data.raw import ImportOptions, RawObject, RawVideo, clip_objects, number_instances, write_raw
from lstfe.data.splits import plan_splits
from lstfe.data.video import DEFAULT_FRAME_RATE, VideoInfo


def import_voc(source: Path, destination: Path, options: ImportOptions) -> dict[str, Any]:
    """Write a raw data set from VOC files and their videos, and return its report (counts by video)."""
    folders = _find_folders(source)
    parts = plan_splits(options.split, list(folders), lists=source / "splits")
    return write_raw(
        destination,
        (_import_video(folders[name], source, options) for name in parts),
        parts,
        about={"format": "voc", "split": options.split},
        options=options,
        corner_pixels_inside=True,
    )


def _find_folders(source: Path) -> dict[str, Path]:
    base = source / "Annotations"
    base = base if base.is_dir() else source
    if any(base.glob("*.xml")):
        raise AnnotationError(f"{base}: holds .xml files, expected one folder a video that holds its frames'")
    folders = {
        path.name: path for path in sorted(base.glob("*")) if path.is_dir() and any(path.glob("*.xml"))
    }
    if not folders:
        raise AnnotationError(f"{source}: holds no VIDEO/FRAME.xml, expected it there or in Annotations/")
    return folders


def _import_video(folder: Path, source: Path, options: ImportOptions) -> RawVideo:
    files = sorted(folder.glob("*.xml"), key=natural_order)
    footage = None if options.annotations_only else _find_footage(folder, source, options)
    places = _places_of_pictures(footage)
    info = probe_footage(footage) if footage is not None else None
    objects: list[RawObject] = []
    frames: list[int] = []
    size = (info.height, info.width) if info is not None else None
    for path in files:
        content = read_frame_xml(path)
        size = _agreed_size(path, content, size, options)
        frame_id = _frame_of(path, places)
        if info is not None:
            check_frame(frame_id, info.num_frames, f"{path}:1", folder.name)
        if frames and frame_id <= frames[-1]:
            raise fault(f"{path}:1", path.name, f"a frame after {frames[-1]}: each number once")
        frames.append(frame_id)
        objects += _objects(content, frame_id)
    height, width = size or (0, 0)
    info = info or VideoInfo(width, height, frames[-1] + 1, DEFAULT_FRAME_RATE)
    kept, counts = clip_objects(objects, (height, width))
    counts["boxes_difficult"] = sum(item.iscrowd for item in objects)
    if any(item.instance < 0 for item in kept):
        kept = number_instances(kept)
    if footage is not None:
        counts["frames_without_annotation"] = info.num_frames - len(frames)
    return RawVideo(folder.name, info, kept, footage, frames, counts=counts)


def _objects(content: FrameXml, frame_id: int) -> list[RawObject]:
    """Return the objects of one frame; an instance without a number is -1."""
    objects = []
    for item in content.objects:
        xmin, ymin, xmax, ymax = item.corners
        bbox = (xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1)
        track = -1 if item.track is None else item.track
        objects.append(RawObject(frame_id, bbox, item.name, track, iscrowd=int(item.is_difficult)))
    return objects


def _agreed_size(
    path: Path, content: FrameXml, size: tuple[int, int] | None, options: ImportOptions
) -> tuple[int, int] | None:
    """Return the size of the video's frames, which all its files must share."""
    said = content.image_size if all(content.image_size) else None
    if said and size and said != size:
        raise AnnotationError(
            f"{path}:1: found a size of {said[1]}x{said[0]} pixels, expected {size[1]}x{size[0]} "
            "as in the rest of the video"
        )
    return size or said or options.image_size


def _find_footage(folder: Path, source: Path, options: ImportOptions) -> Path:
    if options.videos is not None:
        return find_footage([options.videos], folder.name)
    if any(path.suffix.lower() in PICTURE_SUFFIXES for path in folder.iterdir()):
        return folder
    return find_footage([source / "JPEGImages", source / "videos"], folder.name)


def _places_of_pictures(footage: Path | None) -> dict[str, int] | None:
    """Return name before the suffix -> frame, None where there is no folder of pictures."""
    if footage is None or not footage.is_dir():
        return None
    return {picture.stem: place for place, picture in enumerate(list_pictures(footage))}


def _frame_of(path: Path, places: dict[str, int] | None) -> int:
    if places is not None:
        if path.stem not in places:
            raise fault(f"{path}:1", path.stem, "the name of one of the video's pictures")
        return places[path.stem]
    number = re.search(r"[0-9]+$", path.stem)
    if number is None:
        raise fault(f"{path}:1", path.name, "a name that ends with the number of a frame")
    return parse_integer(number[0], f"{path}:1", "the number of a frame", low=0, high=MAX_FRAMES - 1)
