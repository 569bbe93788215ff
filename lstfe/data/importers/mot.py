"""MOTChallenge sequences (MOT15 to MOT20, and what CVAT exports as MOT) -> raw data set.

SOURCE holds sequences, loose or in train/, or is one itself:

    SEQUENCE/gt/gt.txt     one line a box; frames, tracks and pixels all count from 1
    SEQUENCE/gt/labels.txt names of the classes, one a line; without it those of MOT17
    SEQUENCE/seqinfo.ini   [Sequence] imDir frameRate seqLength imWidth imHeight (may be absent)
    SEQUENCE/img1/         pictures; or else a video or folder named like the sequence in --videos

    line = frame "," track "," left "," top "," width "," height "," flag ["," class ["," visibility]]
         | frame "," track "," left "," top "," width "," height "," flag "," x "," y "," z

`flag` 0 marks what does not count: left out. So are, under MOT17's names, the classes that MOTChallenge does
not score: only pedestrians stay. Without a class (MOT15 has places x, y, z in the world instead) or with -1 an
object is called `category` (object). MOT17 has each sequence once for each of three detectors (-DPM, -FRCNN,
-SDP), with the same pictures: one of them is taken.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstfe.data.faults import AnnotationError, fault
from lstfe.data.footage import find_footage, probe_footage
from lstfe.data.importers.grammar import (
    MAX_FRAMES,
    MAX_PX,
    check_frame,
    parse_integer,
    parse_number,
    read_lines,
)
from lstfe.data.raw import ImportOptions, RawObject, RawVideo, clip_objects, number_instances, write_raw
from lstfe.data.splits import plan_splits
from lstfe.data.video import DEFAULT_FRAME_RATE, VideoInfo

MOT17_CLASSES = (
    "pedestrian",
    "person on vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non motorized vehicle",
    "static person",
    "distractor",
    "occluder",
    "occluder on the ground",
    "occluder full",
    "reflection",
)
_DETECTOR = re.compile(r"(MOT17-[0-9]+)-(DPM|FRCNN|SDP)")
_GRAMMAR = "frame,track,left,top,width,height,flag[,class[,visibility]] or ...,flag,x,y,z"
_MAX_ID = 10**9


@dataclass(frozen=True, slots=True)
class _Sequence:
    """One sequence and what its seqinfo.ini says; 0 where it says nothing."""

    folder: Path
    pictures: Path
    num_frames: int
    frame_rate: float
    image_size: tuple[int, int]


def import_mot(source: Path, destination: Path, options: ImportOptions) -> dict[str, Any]:
    """Write a raw data set from MOT sequences, and return its report (counts by video)."""
    folders = {folder.name: folder for folder in _choose_sequences(source)}
    parts = plan_splits(options.split, list(folders), lists=source / "splits")
    return write_raw(
        destination,
        (_import_sequence(folders[name], options) for name in parts),
        parts,
        about={"format": "mot", "split": options.split},
        options=options,
    )


def _choose_sequences(source: Path) -> list[Path]:
    for candidates in ([source], source.glob("*"), source.glob("train/*")):
        found = sorted(folder for folder in candidates if (folder / "gt" / "gt.txt").is_file())
        if found:
            break
    else:
        raise AnnotationError(f"{source}: holds no sequence, expected SEQUENCE/gt/gt.txt there or in train/")
    chosen: dict[str, Path] = {}
    for folder in found:
        matched = _DETECTOR.fullmatch(folder.name)
        chosen.setdefault(matched[1] if matched else folder.name, folder)
    return list(chosen.values())


def _import_sequence(folder: Path, options: ImportOptions) -> RawVideo:
    sequence = _read_seqinfo(folder)
    names = _class_names(folder)
    objects, counts = _read_objects(folder / "gt" / "gt.txt", names, options.category or "object")
    objects.sort(key=lambda pair: pair[1].frame_id)
    last_line, last = objects[-1] if objects else (0, None)
    info, footage = _examine(sequence, last.frame_id + 1 if last else 0, options)
    if last is not None:
        check_frame(last.frame_id, info.num_frames, f"{folder / 'gt' / 'gt.txt'}:{last_line}", folder.name)
    kept, clipped = clip_objects((item for _, item in objects), (info.height, info.width))
    if any(item.instance < 0 for item in kept):
        kept = number_instances(kept)
    return RawVideo(folder.name, info, kept, footage, counts={**clipped, **counts})


def _read_objects(
    path: Path, names: Mapping[int, str] | None, unnamed: str
) -> tuple[list[tuple[int, RawObject]], dict[str, int]]:
    """Return (line, object) of what counts, and how many were left out."""
    objects: list[tuple[int, RawObject]] = []
    counts = {"boxes_ignored": 0, "boxes_of_other_categories": 0}
    seen: set[tuple[int, int]] = set()
    for number, line in read_lines(path):
        where = f"{path}:{number}"
        fields = [part.strip() for part in line.split(",")]
        if not 7 <= len(fields) <= 10:
            raise fault(where, line, f"7 to 10 fields, {_GRAMMAR}")
        frame = parse_integer(fields[0], where, f"frame of {_GRAMMAR}", low=1, high=MAX_FRAMES)
        track = parse_integer(fields[1], where, f"track of {_GRAMMAR}", low=-1, high=_MAX_ID)
        left, top = (parse_number(part, where, f"left and top of {_GRAMMAR}") for part in fields[2:4])
        width, height = (parse_number(part, where, f"width and height of {_GRAMMAR}") for part in fields[4:6])
        flag = parse_number(fields[6], where, f"flag of {_GRAMMAR}")
        category = _category(fields[7] if len(fields) in (8, 9) else "-1", names, unnamed, where)
        if (frame, track) in seen and track >= 0:
            raise fault(where, line, f"track {track} once in frame {frame}")
        seen.add((frame, track))
        if flag == 0:
            counts["boxes_ignored"] += 1
        elif category is None:
            counts["boxes_of_other_categories"] += 1
        else:
            # Pixels count from 1: the left edge of the first pixel is 0 for us.
            bbox = (left - 1, top - 1, width, height)
            objects.append((number, RawObject(frame - 1, bbox, category, track)))
    return objects, counts


def _category(text: str, names: Mapping[int, str] | None, unnamed: str, where: str) -> str | None:
    """Return a class's name, None for one of MOT17 that is not scored."""
    number = parse_integer(text, where, f"class of {_GRAMMAR}", low=-1, high=_MAX_ID)
    if number == -1:
        return unnamed
    if names is not None:
        if number not in names:
            raise fault(where, text, f"a class from 1 to {len(names)}, as in labels.txt")
        return names[number]
    if not 1 <= number <= len(MOT17_CLASSES):
        raise fault(
            where, text, f"a class from 1 to {len(MOT17_CLASSES)} as in MOT17, or names in gt/labels.txt"
        )
    return MOT17_CLASSES[0] if number == 1 else None


def _class_names(folder: Path) -> dict[int, str] | None:
    path = folder / "gt" / "labels.txt"
    if not path.is_file():
        return None
    return dict(enumerate((name for _, name in read_lines(path)), start=1))


def _read_seqinfo(folder: Path) -> _Sequence:
    path = folder / "seqinfo.ini"
    if not path.is_file():
        return _Sequence(folder, folder / "img1", 0, DEFAULT_FRAME_RATE, (0, 0))
    lines = dict(read_lines(path))
    text = "".join(lines.get(number, "") + "\n" for number in range(1, max(lines, default=0) + 1))
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#", ";"), strict=True)
    try:
        parser.read_string(text, source=str(path))
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or next((n for n, _ in getattr(error, "errors", [])), 1)
        raise AnnotationError(
            f"{path}:{line}: not readable, expected [Sequence] and lines key=value"
        ) from None
    if not parser.has_section("Sequence"):
        raise AnnotationError(f"{path}:1: found no [Sequence], expected that section")
    values = dict(parser["Sequence"])

    def where(key: str) -> str:
        at = (number for number, line in lines.items() if line.lower().startswith(key.lower()))
        return f"{path}:{next(at, 1)}"

    def integer(key: str, high: int) -> int:
        return parse_integer(values.get(key.lower(), "0"), where(key), key, low=0, high=high)

    pictures = values.get("imdir", "img1")
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", pictures):
        raise fault(where("imDir"), pictures, "imDir, the name of a folder")
    rate = parse_number(
        values.get("framerate", str(DEFAULT_FRAME_RATE)), where("frameRate"), "frameRate", low=0.01, high=1e6
    )
    image_size = (integer("imHeight", MAX_PX), integer("imWidth", MAX_PX))
    return _Sequence(folder, folder / pictures, integer("seqLength", MAX_FRAMES), float(rate), image_size)


def _examine(sequence: _Sequence, length: int, options: ImportOptions) -> tuple[VideoInfo, Path | None]:
    """Return what the pictures or the video hold, or what seqinfo.ini says of them."""
    height, width = sequence.image_size
    if options.annotations_only:
        if not (height and width):
            height, width = options.image_size or (0, 0)
        return VideoInfo(width, height, sequence.num_frames or length, sequence.frame_rate), None
    footage = sequence.pictures
    if options.videos is not None or not footage.is_dir():
        footage = find_footage([options.videos or sequence.folder], sequence.folder.name)
    info = probe_footage(footage, frame_rate=sequence.frame_rate)
    found = (info.num_frames, info.height, info.width)
    said = (sequence.num_frames or found[0], height or found[1], width or found[2])
    if said != found:
        raise AnnotationError(
            f"{sequence.folder / 'seqinfo.ini'}: found {said[0]} frames of {said[2]}x{said[1]} pixels, "
            f"expected {found[0]} of {found[2]}x{found[1]} as in {footage}"
        )
    return info, footage
