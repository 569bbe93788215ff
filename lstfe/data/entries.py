"""The rows of COCO-VID files: typed, read one by one, and kept as columns where there are many."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from lstfe.data.columns import Collector, Layout, Rows
from lstfe.data.faults import AnnotationError, fault
from lstfe.data.json_rows import Row, read_rows

Integer = Annotated[int, Field(ge=-(2**53), le=2**53)]
"""What JSON holds exactly everywhere, and a column too."""
INFO = "info"
"""Key of a file's object that says things of all its rows."""
CORNER_PIXELS_INSIDE = "corner_pixels_inside"
"""Key in `info`: true where corners that belong to the box became a width of x2 - x1 + 1."""


@dataclass(frozen=True, slots=True)
class VideoEntry:
    """One video; `num_frames` counts the whole file, of which `images` may list a part."""

    id: Integer
    name: str
    file_name: str
    width: Integer
    height: Integer
    num_frames: Integer
    frame_rate: float = 30.0
    vid_train_frames: tuple[Integer, ...] = ()
    """Frames that training may take as current frames (as COCO-VID files of ImageNet-VID name them); empty for all."""


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One frame of a video, with or without objects."""

    id: Integer
    video_id: Integer
    frame_id: Integer
    width: Integer
    height: Integer


@dataclass(frozen=True, slots=True)
class AnnotationEntry:
    """One object in one frame; `instance_id` is the same wherever the object is seen again."""

    id: Integer
    image_id: Integer
    video_id: Integer
    category_id: Integer
    bbox: tuple[float, float, float, float]
    area: float = 0.0
    iscrowd: Integer = 0
    instance_id: Integer = 0


@dataclass(frozen=True, slots=True)
class CategoryEntry:
    """A kind of object."""

    id: Integer
    name: str


Entry = VideoEntry | ImageEntry | AnnotationEntry | CategoryEntry


def _image_numbers(entry: ImageEntry) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return (entry.id, entry.video_id, entry.frame_id, entry.width, entry.height), ()


def _build_image(integers: list[int], numbers: list[float]) -> ImageEntry:
    return ImageEntry(*integers)


def _object_numbers(entry: AnnotationEntry) -> tuple[tuple[int, ...], tuple[float, ...]]:
    ids = (entry.id, entry.image_id, entry.video_id, entry.category_id)
    return (*ids, entry.iscrowd, entry.instance_id), (*entry.bbox, entry.area)


def _build_object(integers: list[int], numbers: list[float]) -> AnnotationEntry:
    number, image, video, category, iscrowd, instance = integers
    x, y, width, height, area = numbers
    return AnnotationEntry(number, image, video, category, (x, y, width, height), area, iscrowd, instance)


IMAGES = Layout(_image_numbers, _build_image, num_integers=5, num_floats=0)
"""id, video_id, frame_id, width, height."""
OBJECTS = Layout(_object_numbers, _build_object, num_integers=6, num_floats=5)
"""id, image_id, video_id, category_id, iscrowd, instance_id; x, y, width, height, area."""


@dataclass(frozen=True, slots=True)
class Lists:
    """What a COCO-VID file holds."""

    videos: list[VideoEntry]
    images: Rows[ImageEntry]
    annotations: Rows[AnnotationEntry]
    categories: list[CategoryEntry]
    corner_pixels_inside: bool = False
    """What `info` says of the boxes."""


def read_lists(path: Path, unusable: list[str] | None = None) -> Lists:
    """Read a COCO-VID file row by row; AnnotationError where it is none, or a row lacks a key or has a wrong type.

    Given a list for them, messages about such rows go there instead. What rows refer to is not looked at.
    """
    videos, categories = list[VideoEntry](), list[CategoryEntry]()
    images, objects = Collector(IMAGES), Collector(OBJECTS)
    inside = False
    for row in read_rows(path, frozenset(_ADAPTERS), whole=frozenset({INFO})):
        try:
            if row.section == INFO:
                inside = corner_pixels_inside(row.content, row.where)
                continue
            match _read_entry(row):
                case VideoEntry() as video:
                    videos.append(video)
                case CategoryEntry() as category:
                    categories.append(category)
                case ImageEntry() as image:
                    images.add(image)
                case AnnotationEntry() as annotation:
                    objects.add(annotation)
        except AnnotationError as error:
            if unusable is None:
                raise
            unusable.append(str(error))
    return Lists(videos, images.rows(), objects.rows(), categories, inside)


def corner_pixels_inside(info: object, where: str) -> bool:
    """Return what a file's `info` says of its boxes, False where it says nothing; AnnotationError for no bool."""
    found = info.get(CORNER_PIXELS_INSIDE, False) if isinstance(info, Mapping) else False
    if not isinstance(found, bool):
        raise fault(f"{where}: {INFO}.{CORNER_PIXELS_INSIDE}", found, "true or false")
    return found


def _read_entry(row: Row) -> Entry:
    try:
        entry: Entry = _ADAPTERS[row.section].validate_python(row.content)
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(str(part) for part in (row.section, *wrong["loc"]))
        raise AnnotationError(f"{row.where}: {place}: {wrong['msg']}, found {wrong['input']!r:.80}") from None
    return entry


def json_rows(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield entries as JSON, with the commas between them."""
    comma = ""
    for entry in entries:
        yield comma + _encode({name: getattr(entry, name) for name in _names(entry)})
        comma = ","


def info_json(*, corner_pixels_inside: bool) -> str:
    """Return the JSON of `info` with its key and a comma, empty where it would say nothing."""
    return f'"{INFO}":{{"{CORNER_PIXELS_INSIDE}":true}},' if corner_pixels_inside else ""


def _names(entry: Entry) -> Sequence[str]:
    if isinstance(entry, VideoEntry) and not entry.vid_train_frames:
        return [name for name in entry.__slots__ if name != "vid_train_frames"]
    return entry.__slots__


_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "videos": TypeAdapter(VideoEntry),
    "images": TypeAdapter(ImageEntry),
    "annotations": TypeAdapter(AnnotationEntry),
    "categories": TypeAdapter(CategoryEntry),
}
_encode = json.JSONEncoder(separators=(",", ":")).encode
