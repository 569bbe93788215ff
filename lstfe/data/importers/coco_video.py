"""COCO-VID JSON -> raw data set.

SOURCE is one file, or a folder with {train,val,test}.json or all.json, loose, in annotations/ or in coco_vid/.
Each is an object with the lists videos, images, annotations and categories; of their rows this is used:

    video      = {id, name | file_name, width?, height?, num_frames? | length?, frame_rate? | fps?,
                  vid_train_frames?: [frame_id, ...]}
    image      = {id, video_id, frame_id, width?, height?, is_vid_train_frame?}      frame_id counts from 0
    annotation = {id, image_id, category_id, bbox, video_id?, instance_id? | track_id?, iscrowd?}
    category   = {id, name}
    bbox       = [x, y, width, height]                                 pixels, continuous
    info       = {corner_pixels_inside?: true | false}                 an object beside the lists, may be absent

Only frames with an image entry are annotated. Where frames are named vid_train_frames, in the one way or the other,
training takes these alone as current frames. A video is found by its file_name or name beside the files or
in videos/. Without numbers of instances, tracks come from association.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from lstfe.data.faults import AnnotationError
from lstfe.data.footage import find_footage, probe_footage
from lstfe.data.importers.coco_database import load_files
from lstfe.data.importers.grammar import check_frame
from lstfe.data.raw import ImportOptions, RawObject, RawVideo, clip_objects, number_instances, write_raw
from lstfe.data.splits import SPLITS, UNSPLIT, plan_splits
from lstfe.data.video import VideoInfo

FOLDERS = (".", "annotations", "coco_vid")
"""Where a source folder keeps its files, in order of preference."""

_ENTRIES = """
SELECT split, id, file_name, width, height, num_frames, frame_rate, line, vid_train_frames
FROM videos WHERE name = ? ORDER BY place"""
# The planner, which knows nothing of the sizes, would go through all rows for each video: hence the hints.
_FRAMES = "SELECT frame FROM images WHERE split = ? AND video = ? ORDER BY frame"
_TRAIN_FRAMES = "SELECT frame FROM images WHERE split = ? AND video = ? AND is_vid_train_frame"
_LAST_IMAGE = "SELECT frame, line FROM images WHERE split = ? AND video = ? ORDER BY frame DESC LIMIT 1"
_IMAGE_SIZE = """
SELECT height, width FROM images INDEXED BY images_by_video
WHERE split = ? AND video = ? AND width > 0 AND height > 0 LIMIT 1"""
_OBJECTS = """
SELECT i.frame, a.x, a.y, a.width, a.height, c.name, a.instance, a.iscrowd
FROM images i INDEXED BY images_by_video
CROSS JOIN annotations a INDEXED BY annotations_by_image ON a.split = i.split AND a.image = i.id
CROSS JOIN categories c ON c.split = a.split AND c.id = a.category
WHERE i.split = ? AND i.video = ? ORDER BY i.frame, a.id"""


def import_coco_video(source: Path, destination: Path, options: ImportOptions) -> dict[str, Any]:
    """Write a raw data set from COCO-VID files and their videos, and return its report (counts by video).

    `auto` keeps the splits of a folder's files; one file alone is split as any format without a split.
    """
    files = _find_files(source)
    # An empty name makes a database that is kept in memory while it is small, else in a file without a name.
    with closing(sqlite3.connect("")) as database:
        corner_pixels_inside = load_files(database, files)
        names = _video_names(database, source)
        is_split = set(files) != {UNSPLIT}
        parts = plan_splits(options.split, list(names), own=dict.fromkeys(names, ()) if is_split else None)
        categories = database.execute("SELECT name FROM categories GROUP BY name ORDER BY min(place)")
        reader = _Reader(database, files, source if source.is_dir() else source.parent, options)
        return write_raw(
            destination,
            (reader.video(names[name], keep_splits=not splits) for name, splits in parts.items()),
            parts,
            about={"format": "coco_video", "split": options.split},
            options=options,
            categories=[str(name) for (name,) in categories],
            corner_pixels_inside=corner_pixels_inside,
        )


def _find_files(source: Path) -> dict[str, Path]:
    """Return split -> file; a file alone is not split."""
    if source.is_file():
        return {UNSPLIT: source}
    for folder in FOLDERS:
        paths = {split: source / folder / f"{split}.json" for split in (*SPLITS, UNSPLIT)}
        found = {split: path for split, path in paths.items() if path.is_file()}
        if UNSPLIT in found and len(found) > 1:
            raise AnnotationError(
                f"{found[UNSPLIT]}: stands beside {next(iter(found))}.json, expected one or the other"
            )
        if found:
            return found
    raise AnnotationError(
        f"{source}: no COCO-VID file, expected a .json file or a folder with train.json, val.json, test.json "
        f"or all.json, there or in {' or '.join(FOLDERS[1:])}"
    )


def _video_names(database: sqlite3.Connection, source: Path) -> dict[str, str]:
    """Return name in the raw data set -> name in the files, in their order."""
    names: dict[str, str] = {}
    for (name,) in database.execute("SELECT name FROM videos GROUP BY name ORDER BY min(place)"):
        changed = name.replace("/", "__")
        if changed in names:
            raise AnnotationError(
                f"{source}: videos {names[changed]} and {name} would both be called {changed}"
            )
        names[changed] = name
    return names


class _Reader:
    """Takes the videos out of the database, one after the other."""

    def __init__(
        self, database: sqlite3.Connection, files: Mapping[str, Path], root: Path, options: ImportOptions
    ) -> None:
        self._database = database
        self._files = files
        self._root = root
        self._options = options

    def video(self, name: str, *, keep_splits: bool) -> RawVideo:
        """Return one video, which several files may share."""
        entries = self._database.execute(_ENTRIES, (name,)).fetchall()
        splits: dict[str, Sequence[int]] = {}
        objects: list[RawObject] = []
        for split, video_id, *_ in entries:
            splits[split] = [frame for (frame,) in self._database.execute(_FRAMES, (split, video_id))]
            objects += self._objects(split, video_id, len(objects))
        info, footage = self._examine(name, entries)
        frames = sorted(frame for part in splits.values() for frame in part)
        objects.sort(key=lambda item: item.frame_id)
        kept, counts = clip_objects(objects, (info.height, info.width))
        if any(item.instance < 0 for item in kept):
            kept = number_instances(kept)
        if "/" in name:
            counts["names_changed"] = 1
        chosen = splits if keep_splits else {}
        named = self._vid_train_frames(name, entries, info.num_frames)
        return RawVideo(name.replace("/", "__"), info, kept, footage, frames, chosen, counts, named)

    def _vid_train_frames(self, name: str, entries: Sequence[Sequence[Any]], num_frames: int) -> list[int]:
        """Return the frames that the video's rows or those of its images name, ascending."""
        frames: set[int] = set()
        for split, video_id, *_, line, listed in entries:
            for frame_id in json.loads(listed):
                check_frame(frame_id, num_frames, f"{self._files[split]}:{line}", name)
                frames.add(frame_id)
            frames.update(frame for (frame,) in self._database.execute(_TRAIN_FRAMES, (split, video_id)))
        return sorted(frames)

    def _objects(self, split: str, video_id: int, first_number: int) -> list[RawObject]:
        """Return the objects of a video in one file; an instance without a number is -1."""
        numbers: dict[int, int] = {}
        return [
            RawObject(
                frame_id,
                (x, y, width, height),
                category,
                -1 if instance is None else numbers.setdefault(instance, first_number + len(numbers)),
                iscrowd,
            )
            for frame_id, x, y, width, height, category, instance, iscrowd in self._database.execute(
                _OBJECTS, (split, video_id)
            )
        ]

    def _examine(self, name: str, entries: Sequence[Sequence[Any]]) -> tuple[VideoInfo, Path | None]:
        """Return what the footage holds, or what the entries say of it where it stays away."""
        split, video_id, file_name, width, height, num_frames, frame_rate, line, _ = entries[0]
        where = f"{self._files[split]}:{line}"
        if not (width and height):
            height, width = self._database.execute(_IMAGE_SIZE, (split, video_id)).fetchone() or (0, 0)
        lasts = [(entry[0], self._database.execute(_LAST_IMAGE, entry[:2]).fetchone()) for entry in entries]
        if self._options.annotations_only:
            length = max((last[0] + 1 for _, last in lasts if last), default=0)
            if not (width and height):
                height, width = self._options.image_size or (0, 0)
            footage, info = None, VideoInfo(width, height, num_frames or length, frame_rate)
        else:
            footage = self._find(name, file_name)
            info = probe_footage(footage, frame_rate=frame_rate)
            if width and height and (width, height) != (info.width, info.height):
                raise AnnotationError(
                    f"{where}: found {width}x{height} pixels for {name}, expected {info.width}x{info.height} "
                    f"as in {footage}"
                )
        for part, last in lasts:
            if last:
                check_frame(last[0], info.num_frames, f"{self._files[part]}:{last[1]}", name)
        return info, footage

    def _find(self, name: str, file_name: str | None) -> Path:
        path = PurePosixPath(file_name or name)
        bases = [self._options.videos] if self._options.videos else [self._root, self._root.parent]
        if not path.is_absolute() and ".." not in path.parts:
            for base in bases:
                if (base / path).exists():
                    return base / path
        folders = bases if self._options.videos else [base / "videos" for base in bases]
        return find_footage(folders, path.stem if file_name else path.name)
