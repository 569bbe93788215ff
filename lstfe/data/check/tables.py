"""Annotations as columns: read leniently, row by row, so that every fault can be told and not only the first.

Shapes: V videos, I images, N objects of one split. Places count from 0; -1 stands for a row that is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lstfe.data.columns import Doubles, places_of
from lstfe.data.entries import CategoryEntry, VideoEntry, read_lists
from lstfe.data.faults import AnnotationError
from lstfe.data.splits import annotation_files
from lstfe.types import IntArray


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


def _follow(places: IntArray, values: IntArray) -> IntArray:
    """Return values[places], -1 where the place is."""
    if not len(values):
        return np.full(len(places), -1, np.int64)
    return np.where(places >= 0, values[places], -1)


def _load_table(split: str, path: Path) -> SplitTable:
    unusable: list[str] = []
    lists = read_lists(path, unusable)
    return SplitTable(
        split,
        path,
        lists.videos,
        lists.categories,
        lists.images.integers[:, :3],
        lists.annotations.integers[:, [0, 1, 2, 3, 5]],
        lists.annotations.floats[:, :4],
        unusable,
    )
