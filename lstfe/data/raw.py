"""The raw data set that every importer writes: footage, COCO-VID annotations by split, a report.

Videos go through one after the other: only the one at hand is in memory, its rows go to files at once.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from lstfe.data.association import Box, associate
from lstfe.data.coco_video import clip_bbox
from lstfe.data.entries import info_json
from lstfe.data.faults import AnnotationError
from lstfe.data.folders import REPORT_NAME, new_folder
from lstfe.data.footage import place_footage
from lstfe.data.splits import SPLITS, UNSPLIT, Parts, divide_frames
from lstfe.data.video import VideoInfo

_ROWS = ("videos", "images", "annotations")
_NAME = re.compile(r"[^./\\\x00-\x1f\x7f\ud800-\udfff][^/\\\x00-\x1f\x7f\ud800-\udfff]*")
_MAX_NAME_BYTES = 200
_FAR = 2**40

Bbox = tuple[float, float, float, float]
"""x, y, width, height in pixels of the video."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What all importers share."""

    videos: Path | None = None
    """Folder of the footage, where it lies elsewhere than the format expects."""
    split: str = "auto"
    """As lstfe.data.splits explains."""
    link: bool = False
    """Hard-link the footage instead of copying it."""
    annotations_only: bool = False
    """Take no footage; sizes and lengths are then what the annotations say, or `image_size`."""
    image_size: tuple[int, int] | None = None
    """(height, width) in pixels, for annotations that do not say it and come without footage."""
    category: str | None = None
    """What the objects are called, for formats that do not say it."""


@dataclass(frozen=True, slots=True)
class RawObject:
    """One object in one frame; `instance` is its number in the video."""

    frame_id: int
    bbox: Bbox
    category: str
    instance: int
    iscrowd: int = 0


@dataclass(slots=True)
class RawVideo:
    """One video on its way into a raw data set; `splits` says which of its frames belong to which split."""

    name: str
    info: VideoInfo
    """`width` and `height` are 0 where nothing says them (annotations alone)."""
    objects: list[RawObject]
    """Ascending by frame."""
    footage: Path | None = None
    frames: Sequence[int] | None = None
    """The annotated frames, ascending; None for all."""
    splits: dict[str, Sequence[int]] = field(default_factory=dict)
    """Left empty, the driver fills it as planned."""
    counts: dict[str, int] = field(default_factory=dict)
    """What the importer changed, for the report: boxes clipped, dropped, ..."""
    vid_train_frames: Sequence[int] = ()
    """The frames that training may take as current frames; empty for all."""


def write_raw(
    destination: Path,
    videos: Iterable[RawVideo],
    parts: Parts,
    *,
    about: Mapping[str, Any],
    options: ImportOptions,
    categories: Sequence[str] = (),
    in_place: bool = False,
    corner_pixels_inside: bool = False,
) -> dict[str, Any]:
    """Write a raw data set, whole or not at all, and return its report, which `about` opens.

    `categories` come first and in this order; others follow as they are met. `in_place` writes annotations
    and report into `destination`, which holds the videos already. `corner_pixels_inside` tells protocols that
    corners which belong to the box became a width of x2 - x1 + 1.
    """
    if options.annotations_only:
        about = {**about, "annotations_only": True}
    if in_place:
        with RawWriter(destination, categories, corner_pixels_inside=corner_pixels_inside) as writer:
            return _write_all(writer, destination, videos, parts, about, options, place=False)
    with new_folder(destination, replace=False) as folder:
        (folder / "videos").mkdir()
        with RawWriter(folder, categories, corner_pixels_inside=corner_pixels_inside) as writer:
            return _write_all(writer, folder, videos, parts, about, options, place=True)


def clip_objects(
    objects: Iterable[RawObject], image_size: tuple[int, int]
) -> tuple[list[RawObject], dict[str, int]]:
    """Return the objects clipped to the frame (height, width), and how many were clipped or dropped.

    A size of 0 is unknown: then only what lies left of or above the frame is cut off.
    """
    limits = (image_size[0] or _FAR, image_size[1] or _FAR)
    kept: list[RawObject] = []
    counts = {"boxes_clipped": 0, "boxes_dropped": 0}
    for item in objects:
        bbox = clip_bbox(item.bbox, limits) if min(item.bbox[2:]) > 0 else None
        if bbox is None:
            counts["boxes_dropped"] += 1
        elif bbox == item.bbox:
            kept.append(item)
        else:
            counts["boxes_clipped"] += 1
            kept.append(dataclasses.replace(item, bbox=bbox))
    return kept, counts


def number_instances(objects: Sequence[RawObject]) -> list[RawObject]:
    """Return the objects (ascending by frame) numbered by association within each category."""
    numbered: list[tuple[int, RawObject]] = []
    num_instances = 0
    for category in dict.fromkeys(item.category for item in objects):
        frames: dict[int, list[tuple[int, RawObject]]] = {}
        for place, item in enumerate(objects):
            if item.category == category:
                frames.setdefault(item.frame_id, []).append((place, item))
        rows = associate([(frame, [_corners(i.bbox) for _, i in items]) for frame, items in frames.items()])
        for items, numbers in zip(frames.values(), rows, strict=True):
            for (place, item), number in zip(items, numbers, strict=True):
                numbered.append((place, dataclasses.replace(item, instance=num_instances + number)))
        num_instances += 1 + max((number for row in rows for number in row), default=-1)
    return [item for _, item in sorted(numbered, key=lambda pair: pair[0])]


def _corners(bbox: Bbox) -> Box:
    return bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]


def check_video_name(name: str, where: str) -> str:
    """Return the name; AnnotationError where it cannot be a file's name, which it becomes."""
    if not _NAME.fullmatch(name) or len(name.encode()) > _MAX_NAME_BYTES:
        raise AnnotationError(
            f"{where}: found {name!r} as name of a video, expected 1 to {_MAX_NAME_BYTES} characters "
            "without slashes, not beginning with a dot"
        )
    return name


class RawWriter:
    """Writes annotations/<split>.json row by row; use it as a context and call `finish` at its end."""

    def __init__(
        self, folder: Path, categories: Sequence[str] = (), *, corner_pixels_inside: bool = False
    ) -> None:
        self._folder = folder
        self._info = info_json(corner_pixels_inside=corner_pixels_inside)
        self._categories = {name: number for number, name in enumerate(categories, start=1)}
        self._videos: dict[str, dict[str, Any]] = {}
        self._totals: dict[str, int] = {}
        self._splits: dict[str, _SplitFiles] = {}
        self._files = ExitStack()
        self._partial = Path(tempfile.mkdtemp(prefix=".annotations.", dir=folder))

    def __enter__(self) -> RawWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._files.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, video: RawVideo, file_name: str) -> None:
        """Write the rows of one video; `file_name` is where its footage lies in the data set."""
        if video.name in self._videos:
            raise AnnotationError(f"{self._folder}: video {video.name} comes twice, expected names once each")
        for split, frames in video.splits.items():
            if split not in self._splits:
                self._splits[split] = _SplitFiles(self._partial, split, self._files)
            self._splits[split].add(video, file_name, frames, self._categories)
        self._videos[video.name] = _describe_video(video)
        for name, count in video.counts.items():
            self._totals[name] = self._totals.get(name, 0) + count

    def finish(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Put the files in place, those of an earlier import away, and return the report, written too."""
        directory = self._folder / "annotations"
        directory.mkdir(exist_ok=True)
        names = [{"id": number, "name": name} for name, number in self._categories.items()]
        for split in (*SPLITS, UNSPLIT):
            if split in self._splits:
                self._splits[split].join(names, self._info).replace(directory / f"{split}.json")
            else:
                (directory / f"{split}.json").unlink(missing_ok=True)
        counted = [split for split in (*SPLITS, UNSPLIT) if split in self._splits]
        report = {
            **about,
            **self._totals,
            "splits": {split: self._splits[split].counts for split in counted},
            "videos": self._videos,
        }
        (self._folder / REPORT_NAME).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return report


class _SplitFiles:
    """The rows of one split, in one file a kind until all are known."""

    def __init__(self, directory: Path, split: str, files: ExitStack) -> None:
        self._whole = directory / f"{split}.json"
        self._paths = {kind: directory / f"{split}.{kind}" for kind in _ROWS}
        self._files: dict[str, TextIO] = {
            kind: files.enter_context(path.open("w", encoding="utf-8")) for kind, path in self._paths.items()
        }
        self._num_rows = dict.fromkeys(_ROWS, 0)
        self._num_instances = 0

    @property
    def counts(self) -> dict[str, int]:
        """How much there is, as the report says it."""
        return {
            "videos": self._num_rows["videos"],
            "frames": self._num_rows["images"],
            "boxes": self._num_rows["annotations"],
        }

    def add(self, video: RawVideo, file_name: str, frames: Sequence[int], categories: dict[str, int]) -> None:
        """Write one video; a category that is met for the first time gets the next number."""
        info = video.info
        video_id = self._num_rows["videos"] + 1
        current = sorted(set(video.vid_train_frames).intersection(frames))
        self._write("videos", {"id": video_id, "name": video.name, "file_name": file_name,
                               "width": info.width, "height": info.height,
                               "num_frames": info.num_frames, "frame_rate": info.frame_rate,
                               **({"vid_train_frames": current} if current else {})})  # fmt: skip
        first_image = self._num_rows["images"] + 1
        place = {frame_id: image for image, frame_id in enumerate(frames, start=first_image)}
        for frame_id, image in place.items():
            self._write("images", {"id": image, "video_id": video_id, "frame_id": frame_id,
                                   "width": info.width, "height": info.height})  # fmt: skip
        chosen = [item for item in video.objects if item.frame_id in place]
        numbers = sorted({item.instance for item in chosen})
        instances = {number: self._num_instances + n for n, number in enumerate(numbers, start=1)}
        for item in chosen:
            self._write(
                "annotations",
                {
                    "id": self._num_rows["annotations"] + 1,
                    "image_id": place[item.frame_id],
                    "video_id": video_id,
                    "category_id": categories.setdefault(item.category, len(categories) + 1),
                    "bbox": item.bbox,
                    "area": item.bbox[2] * item.bbox[3],
                    "iscrowd": item.iscrowd,
                    "instance_id": instances[item.instance],
                },
            )
        self._num_instances += len(numbers)

    def join(self, categories: Sequence[Mapping[str, Any]], info: str) -> Path:
        """Return one JSON file with all rows; the same rows give the same bytes."""
        with self._whole.open("w", encoding="utf-8") as whole:
            whole.write("{" + info)
            for kind, path in self._paths.items():
                self._files[kind].close()
                whole.write(f'"{kind}":[')
                with path.open(encoding="utf-8") as rows:
                    shutil.copyfileobj(rows, whole)
                path.unlink()
                whole.write("],")
            whole.write(f'"categories":{_encode(categories)}}}\n')
        return self._whole

    def _write(self, kind: str, row: Mapping[str, Any]) -> None:
        file = self._files[kind]
        if self._num_rows[kind]:
            file.write(",")
        file.write(_encode(row))
        self._num_rows[kind] += 1


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _write_all(
    writer: RawWriter,
    folder: Path,
    videos: Iterable[RawVideo],
    parts: Parts,
    about: Mapping[str, Any],
    options: ImportOptions,
    *,
    place: bool,
) -> dict[str, Any]:
    for video in videos:
        check_video_name(video.name, str(video.footage or folder))
        frames = range(video.info.num_frames) if video.frames is None else video.frames
        video.splits = video.splits or divide_frames(parts[video.name], frames)
        file_name = f"videos/{video.name}"
        if video.footage is not None:
            file_name += "" if video.footage.is_dir() else video.footage.suffix
            if place:
                place_footage(video.footage, folder / file_name, link=options.link)
        writer.add(video, file_name)
    return writer.finish(about)


def _describe_video(video: RawVideo) -> dict[str, Any]:
    return {
        "splits": {split: [frames[0], frames[-1] + 1] for split, frames in video.splits.items() if frames},
        "frames": video.info.num_frames,
        "image_size": [video.info.height, video.info.width],
        "frames_with_objects": len({item.frame_id for item in video.objects}),
        "boxes": len(video.objects),
        "instances": len({item.instance for item in video.objects}),
        **video.counts,
        **({"vid_train_frames": len(video.vid_train_frames)} if video.vid_train_frames else {}),
    }
