"""Annotations as columns: read leniently, row by row, so that every fault can be told and not only the first.

Shapes: V videos, I images, N objects of one split. Places count from 0; -1 stands for a row that is not there.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from lstfe.data.coco_video import AnnotationEntry, AnnotationError, CategoryEntry, ImageEntry, VideoEntry
from lstfe.data.importers.json_rows import Row, read_rows
from lstfe.data.splits import annotation_files
from lstfe.types import IntArray

Doubles = npt.NDArray[np.float64]

_ENTRIES: dict[str, TypeAdapter[Any]] = {
    "videos": TypeAdapter(VideoEntry),
    "images": TypeAdapter(ImageEntry),
    "annotations": TypeAdapter(AnnotationEntry),
    "categories": TypeAdapter(CategoryEntry),
}
_MAX_INT = 2**53


@dataclass(frozen=True)
class SplitTable:
    """One annotation file; the columns hold numbers alone, a million boxes take about 100 MB."""

    split: str
    path: Path
    videos: list[VideoEntry]
    categories: list[CategoryEntry]
    images: IntArray
    """(I, 3): id, video_id, frame_id."""
    objects: IntArray
    """(N, 5): id, image_id, video_id, category_id, instance_id."""
    bboxes: Doubles
    """(N, 4): x, y, width, height in pixels of the video."""
    unusable: list[str]
    """Messages about rows that were left out."""

    @cached_property
    def image_video(self) -> IntArray:
        """Place of each image's video, (I,)."""
        return places_of(self.images[:, 1], np.array([video.id for video in self.videos], np.int64))

    @cached_property
    def object_image(self) -> IntArray:
        """Place of each object's image, (N,)."""
        return places_of(self.objects[:, 1], self.images[:, 0])

    @cached_property
    def object_video(self) -> IntArray:
        """Place of each object's video, by its image, (N,)."""
        return _follow(self.object_image, self.image_video)

    @cached_property
    def object_frame(self) -> IntArray:
        """frame_id of each object, (N,)."""
        return _follow(self.object_image, self.images[:, 2])

    @cached_property
    def image_sizes(self) -> IntArray:
        """(height, width) of each video, (V, 2); 0 where it is unknown."""
        return np.array([(v.height, v.width) for v in self.videos], np.int64).reshape(-1, 2)

    @cached_property
    def with_area(self) -> npt.NDArray[np.bool_]:
        """Objects that have a known video and an area, (N,)."""
        has_area = np.isfinite(self.bboxes).all(axis=1) & (self.bboxes[:, 2:] > 0).all(axis=1)
        return has_area & (self.object_video >= 0)


def load_tables(raw: Path) -> list[SplitTable]:
    """Read every split of a raw data set; AnnotationError where there is none or a file is no COCO-VID at all."""
    if not raw.is_dir():
        raise AnnotationError(
            f"{raw}: no such folder, expected a raw data set (lstfe data import writes them)"
        )
    return [_load_table(split, path) for split, path in annotation_files(raw).items()]


def places_of(keys: IntArray, ids: IntArray) -> IntArray:
    """Return the place of each key among the ids, -1 where it is not: (K,), (M,) -> (K,)."""
    if not len(ids):
        return np.full(len(keys), -1, np.int64)
    order = np.argsort(ids, kind="stable")
    found = order[np.minimum(np.searchsorted(ids, keys, sorter=order), len(ids) - 1)]
    return np.where(ids[found] == keys, found, -1)


def _follow(places: IntArray, values: IntArray) -> IntArray:
    """Return values[places], -1 where the place is."""
    if not len(values):
        return np.full(len(places), -1, np.int64)
    return np.where(places >= 0, values[places], -1)


def _load_table(split: str, path: Path) -> SplitTable:
    columns = {"images": array("q"), "annotations": array("q")}
    bboxes = array("d")
    entries: dict[str, list[Any]] = {"videos": [], "categories": []}
    unusable: list[str] = []
    for row in read_rows(path, frozenset(_ENTRIES)):
        try:
            entry = _read_row(row)
        except AnnotationError as error:
            unusable.append(str(error))
            continue
        if isinstance(entry, ImageEntry):
            columns["images"].extend((entry.id, entry.video_id, entry.frame_id))
        elif isinstance(entry, AnnotationEntry):
            ids = (entry.id, entry.image_id, entry.video_id, entry.category_id, entry.instance_id)
            columns["annotations"].extend(ids)
            bboxes.extend(entry.bbox)
        else:
            entries[row.section].append(entry)
    return SplitTable(
        split,
        path,
        entries["videos"],
        entries["categories"],
        np.array(columns["images"], np.int64).reshape(-1, 3),
        np.array(columns["annotations"], np.int64).reshape(-1, 5),
        np.array(bboxes, np.float64).reshape(-1, 4),
        unusable,
    )


def _read_row(row: Row) -> Any:
    try:
        entry = _ENTRIES[row.section].validate_python(row.content)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in (row.section, *fault["loc"]))
        raise AnnotationError(f"{row.where}: {place}: {fault['msg']}, found {fault['input']!r:.80}") from None
    numbers = [getattr(entry, name) for name in entry.__slots__ if name not in ("bbox", "area", "frame_rate")]
    if any(isinstance(number, int) and abs(number) > _MAX_INT for number in numbers):
        raise AnnotationError(
            f"{row.where}: {row.section}: a number is past 2^53, expected ids to count from 1"
        )
    return entry
