"""COCO-VID rows in a database on disk: checked one by one, then joined, whatever order a file has them in."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from lstfe.data.entries import CORNER_PIXELS_INSIDE, INFO, corner_pixels_inside
from lstfe.data.faults import AnnotationError, fault
from lstfe.data.importers.grammar import MAX_FRAMES, MAX_PX
from lstfe.data.json_rows import Row, read_rows
from lstfe.data.raw import check_video_name
from lstfe.data.video import DEFAULT_FRAME_RATE

Id = Annotated[int, Field(ge=-(2**53), le=2**53)]
Pixels = Annotated[float, Field(ge=-MAX_PX, le=MAX_PX)]
Side = Annotated[int, Field(ge=0, le=MAX_PX)]
NumFrames = Annotated[int, Field(ge=0, le=MAX_FRAMES)]
FrameRate = Annotated[float, Field(gt=0, le=1e6)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Video(BaseModel):
    id: Id
    name: Name | None = None
    file_name: Name | None = None
    width: Side = 0
    height: Side = 0
    num_frames: NumFrames | None = None
    length: NumFrames | None = None
    frame_rate: FrameRate | None = None
    fps: FrameRate | None = None
    vid_train_frames: list[Annotated[int, Field(ge=0, lt=MAX_FRAMES)]] = []


class _Image(BaseModel):
    id: Id
    video_id: Id
    frame_id: Annotated[int, Field(ge=0, lt=MAX_FRAMES)]
    width: Side = 0
    height: Side = 0
    is_vid_train_frame: bool = False


class _Annotation(BaseModel):
    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[Pixels, Pixels, Pixels, Pixels]
    video_id: Id | None = None
    instance_id: Id | None = None
    track_id: Id | None = None
    iscrowd: Annotated[int, Field(ge=0, le=1)] = 0


class _Category(BaseModel):
    id: Id
    name: Name


_GRAMMAR: dict[str, type[BaseModel]] = {
    "videos": _Video,
    "images": _Image,
    "annotations": _Annotation,
    "categories": _Category,
}
_TABLES = """
CREATE TABLE videos (place INTEGER PRIMARY KEY, split, id, name, file_name, width, height, num_frames,
    frame_rate, vid_train_frames, line, UNIQUE (split, id), UNIQUE (split, name));
CREATE INDEX videos_by_name ON videos (name);
CREATE TABLE images (split, id, video, frame, width, height, is_vid_train_frame, line,
    PRIMARY KEY (split, id)) WITHOUT ROWID;
CREATE UNIQUE INDEX images_by_video ON images (split, video, frame);
CREATE TABLE annotations (split, id, image, category, x, y, width, height, video, instance, iscrowd, line,
    PRIMARY KEY (split, id)) WITHOUT ROWID;
CREATE TABLE categories (place INTEGER PRIMARY KEY, split, id, name, line,
    UNIQUE (split, id), UNIQUE (split, name));
"""
_UNKNOWN = """
SELECT a.split, a.line, a.{column} FROM {table} a
LEFT JOIN {other} b ON b.split = a.split AND b.id = a.{column} WHERE b.id IS NULL"""
_OTHER_VIDEO = """
SELECT a.split, a.line, a.video FROM annotations a JOIN images i ON i.split = a.split AND i.id = a.image
WHERE a.video IS NOT NULL AND a.video != i.video"""
_TWO_SPLITS = """
SELECT i.split, max(i.line), i.frame FROM images i JOIN videos v ON v.split = i.split AND v.id = i.video
GROUP BY v.name, i.frame HAVING count(*) > 1"""
_CHECKS = (
    (
        _UNKNOWN.format(table="images", column="video", other="videos"),
        "as video_id, expected the id of a video",
    ),
    (
        _UNKNOWN.format(table="annotations", column="image", other="images"),
        "as image_id, expected the id of an image",
    ),
    (
        _UNKNOWN.format(table="annotations", column="category", other="categories"),
        "as category_id, expected the id of a category",
    ),
    (_OTHER_VIDEO, "as video_id, expected that of the annotation's image"),
    (_TWO_SPLITS, "as frame_id again for the same video, expected each of its frames in one split"),
)
"""(query for (split, line, what is wrong there), what it was found as and what was expected)."""


def load_files(database: sqlite3.Connection, files: Mapping[str, Path]) -> bool:
    """Fill an empty database from split -> file; AnnotationError names the line that breaks the grammar.

    Returns whether `info.corner_pixels_inside` stands in the files, which must agree.
    """
    database.executescript(_TABLES)
    inside = dict.fromkeys(files, False)
    with database:
        for split, path in files.items():
            for row in read_rows(path, frozenset(_GRAMMAR), whole=frozenset({INFO})):
                if row.section == INFO:
                    inside[split] = corner_pixels_inside(row.content, row.where)
                else:
                    _load_row(database, split, row)
        database.execute("CREATE INDEX annotations_by_image ON annotations (split, image)")
    for query, expected in _CHECKS:
        wrong = database.execute(f"{query} LIMIT 1").fetchone()
        if wrong is not None:
            raise AnnotationError(f"{files[wrong[0]]}:{wrong[1]}: found {wrong[2]} {expected}")
    agreed = next(iter(inside.values()))
    for split, found in inside.items():
        if found != agreed:
            expected = f"{agreed} as in {next(iter(files.values())).name}"
            raise fault(f"{files[split]}: {INFO}.{CORNER_PIXELS_INSIDE}", found, expected)
    return agreed


def _load_row(database: sqlite3.Connection, split: str, row: Row) -> None:
    try:
        entry = _GRAMMAR[row.section].model_validate(row.content)
        values = (*_columns(entry, split, row.where), row.line)
        database.execute(f"INSERT INTO {row.section} VALUES ({','.join('?' * len(values))})", values)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in (row.section, *detail["loc"]))
        if detail["type"] == "missing":
            raise AnnotationError(f"{row.where}: found no {place}, expected one in each row") from None
        expected = detail["msg"].removeprefix("Input should be ")
        raise fault(f"{row.where}: {place}", detail["input"], expected) from None
    except sqlite3.IntegrityError:
        raise fault(
            row.where, row.content, f"each id, name and frame once in the list of {row.section}"
        ) from None
    except UnicodeEncodeError:
        raise fault(row.where, row.content, "names of characters that Unicode has") from None


def _columns(entry: BaseModel, split: str, where: str) -> tuple[object, ...]:
    match entry:
        case _Video():
            name = entry.name or (entry.file_name or "").removesuffix(
                PurePosixPath(entry.file_name or "").suffix
            )
            check_video_name(name.replace("/", "__"), where)
            length = entry.length if entry.num_frames is None else entry.num_frames
            rate = entry.frame_rate or entry.fps or DEFAULT_FRAME_RATE
            size = (entry.width, entry.height)
            frames = json.dumps(entry.vid_train_frames)
            return (None, split, entry.id, name, entry.file_name, *size, length, rate, frames)
        case _Image():
            size = (entry.width, entry.height)
            return (split, entry.id, entry.video_id, entry.frame_id, *size, entry.is_vid_train_frame)
        case _Annotation():
            instance = entry.track_id if entry.instance_id is None else entry.instance_id
            box = (entry.image_id, entry.category_id, *entry.bbox)
            return (split, entry.id, *box, entry.video_id, instance, entry.iscrowd)
        case _Category():
            return (None, split, entry.id, entry.name)
    raise TypeError(type(entry))
