"""COCO-VID annotations: typed, validated on reading, indexed by video and frame.

ids are 1-based, `frame_id` is 0-based, `bbox` is (x, y, width, height) in pixels of the video. A detector's
label is the 1-based position of a category in the list (0 is the background). `info.corner_pixels_inside` says
that corners which belong to the box became a width of x2 - x1 + 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lstfe.data.columns import Groups, Rows, first_repeated, places_of
from lstfe.data.entries import (
    IMAGES,
    OBJECTS,
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    VideoEntry,
    info_json,
    json_rows,
    read_lists,
)
from lstfe.data.faults import AnnotationError
from lstfe.types import FloatArray, IntArray

__all__ = [
    "AnnotationEntry",
    "AnnotationError",
    "CategoryEntry",
    "ImageEntry",
    "VideoAnnotations",
    "VideoEntry",
    "clip_bbox",
    "clip_to_frames",
    "load_annotations",
    "save_annotations",
]

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class VideoAnnotations:
    """All annotations of one split; those read from a file keep images and objects as columns."""

    videos: Sequence[VideoEntry]
    images: Sequence[ImageEntry]
    annotations: Sequence[AnnotationEntry]
    categories: Sequence[CategoryEntry]
    corner_pixels_inside: bool = False
    """Widths and heights have the pixel already that some protocols add to x2 - x1 and y2 - y1."""

    @property
    def label_names(self) -> list[str]:
        """Category names by label - 1."""
        return [category.name for category in self.categories]

    @cached_property
    def labels(self) -> dict[int, int]:
        """Category id -> label."""
        return {category.id: place for place, category in enumerate(self.categories, start=1)}

    @cached_property
    def video_by_name(self) -> dict[str, VideoEntry]:
        """Video name -> its entry."""
        return {video.name: video for video in self.videos}

    @cached_property
    def images_by_video(self) -> Mapping[str, list[ImageEntry]]:
        """Video name -> its frames in this split, ascending; videos in the file's order."""
        names = [video.name for video in self.videos]
        return Groups(names, self._frames_of, self.image_rows, self._image_order)

    @cached_property
    def annotations_by_image(self) -> Mapping[int, list[AnnotationEntry]]:
        """Image id -> its objects; a frame without objects is absent."""
        present: list[int] = np.unique(self._object_image_ids).tolist()
        return Groups(present, self._objects_of, self.object_rows, self._object_order)

    def frame_ids(self, video: str) -> list[int]:
        """Return the frames of a video that belong to this split, ascending."""
        frame_ids: list[int] = self._images_of(video)[:, 2].tolist()
        return frame_ids

    def current_frames(self, video: str) -> list[int]:
        """Return the frames of `frame_ids` that training may take as current frames: those named, all without any."""
        named, frame_ids = set(self.video_by_name[video].vid_train_frames), self.frame_ids(video)
        return [frame_id for frame_id in frame_ids if frame_id in named] or frame_ids

    def objects(self, video: str, frame_id: int) -> list[AnnotationEntry]:
        """Return the objects of one frame; KeyError where the split has no such frame."""
        return list(self.object_rows.select(self._object_places(video, frame_id)))

    def boxes(self, video: str, frame_id: int, *, crowds: bool | None = None) -> tuple[FloatArray, IntArray]:
        """Return the boxes (G, 4) xyxy in pixels of the video, and the labels (G,) >= 1, of one frame.

        `crowds`: of the crowds alone (True) or without them (False); None = of all.
        """
        rows = self.object_rows.select(self._object_places(video, frame_id))
        if crowds is not None:
            rows = rows.select((rows.integers[:, 4] != 0) == crowds)
        corners = rows.floats[:, :4].copy()
        corners[:, 2:] += corners[:, :2]
        labels = [self.labels[category_id] for category_id in rows.integers[:, 3].tolist()]
        return corners.astype(np.float32), np.array(labels, np.int64)

    def num_objects(self, video: str) -> IntArray:
        """Return the number of objects in each of a video's `frame_ids`, (F,)."""
        image_ids, found = self._images_of(video)[:, 0], self._object_image_ids
        counts: IntArray = np.searchsorted(found, image_ids, "right") - np.searchsorted(found, image_ids)
        return counts

    def with_images(self, kept: Flags) -> VideoAnnotations:
        """Return the same with some of the images, a mask (I,), and their objects."""
        images = self.image_rows.select(kept)
        left = np.isin(self.object_rows.integers[:, 1], images.integers[:, 0])
        return dataclasses.replace(self, images=images, annotations=self.object_rows.select(left))

    @cached_property
    def image_rows(self) -> Rows[ImageEntry]:
        """`images` as columns: id, video_id, frame_id, width, height."""
        return IMAGES.rows(self.images)

    @cached_property
    def object_rows(self) -> Rows[AnnotationEntry]:
        """`annotations` as columns: id, image_id, video_id, category_id, iscrowd, instance_id; x, y, w, h, area."""
        return OBJECTS.rows(self.annotations)

    @cached_property
    def object_video(self) -> IntArray:
        """Place of each object's video, (N,)."""
        return places_of(self.object_rows.integers[:, 2], self.video_ids)

    @cached_property
    def video_ids(self) -> IntArray:
        """(V,)"""
        return np.array([video.id for video in self.videos], np.int64)

    @cached_property
    def _image_order(self) -> IntArray:
        """Places of the images by video and frame."""
        columns = self.image_rows.integers
        return np.lexsort((columns[:, 2], places_of(columns[:, 1], self.video_ids)))

    @cached_property
    def _first_frames(self) -> dict[str, tuple[int, int]]:
        """Video name -> where its images begin and end in that order."""
        of_image = places_of(self.image_rows.integers[:, 1], self.video_ids)
        ends = np.cumsum(np.bincount(of_image, minlength=len(self.videos))).tolist()
        starts = [0, *ends]
        return {video.name: (starts[place], ends[place]) for place, video in enumerate(self.videos)}

    def _frames_of(self, video: str) -> tuple[int, int]:
        return self._first_frames[video]

    @cached_property
    def _ordered_images(self) -> IntArray:
        """(I, 3): id, video_id, frame_id in that order."""
        return self.image_rows.integers[self._image_order, :3]

    def _images_of(self, video: str) -> IntArray:
        start, end = self._frames_of(video)
        return self._ordered_images[start:end]

    @cached_property
    def _object_order(self) -> IntArray:
        """Places of the objects by image."""
        return np.argsort(self.object_rows.integers[:, 1], kind="stable")

    @cached_property
    def _object_image_ids(self) -> IntArray:
        """image_id of each object in that order."""
        image_ids: IntArray = self.object_rows.integers[self._object_order, 1]
        return image_ids

    def _objects_of(self, image_id: int) -> tuple[int, int]:
        start, end = np.searchsorted(self._object_image_ids, (image_id, image_id + 1)).tolist()
        if start == end:
            raise KeyError(image_id)
        return start, end

    def _object_places(self, video: str, frame_id: int) -> IntArray:
        images = self._images_of(video)
        place = int(np.searchsorted(images[:, 2], frame_id))
        if place == len(images) or images[place, 2] != frame_id:
            raise KeyError((video, frame_id))
        image_id = int(images[place, 0])
        start, end = np.searchsorted(self._object_image_ids, (image_id, image_id + 1)).tolist()
        return self._object_order[start:end]


def load_annotations(path: Path | str) -> VideoAnnotations:
    """Read and validate a COCO-VID file; unknown keys are ignored, boxes may pass the frame's edge."""
    path = Path(path)
    lists = read_lists(path)
    annotations = VideoAnnotations(
        lists.videos, lists.images, lists.annotations, lists.categories, lists.corner_pixels_inside
    )
    for fault in _faults(annotations):
        raise AnnotationError(f"{path}: {fault}")
    return annotations


def save_annotations(annotations: VideoAnnotations, path: Path) -> None:
    """Write a COCO-VID file; the same annotations give the same bytes."""
    with path.open("w", encoding="utf-8") as file:
        before = "{" + info_json(corner_pixels_inside=annotations.corner_pixels_inside)
        for kind in ("videos", "images", "annotations", "categories"):
            file.write(f'{before}"{kind}":[')
            file.writelines(json_rows(getattr(annotations, kind)))
            before = "],"
        file.write("]}\n")


def clip_to_frames(annotations: VideoAnnotations) -> tuple[VideoAnnotations, dict[str, int], dict[str, int]]:
    """Clip every box to its frame and drop what keeps no area; returns also both counts by video name."""
    rows, of_video = annotations.object_rows, annotations.object_video
    sizes = np.array([(video.width, video.height) for video in annotations.videos], np.float64).reshape(-1, 2)
    low, size = rows.floats[:, :2], rows.floats[:, 2:4]
    clipped_low = np.maximum(low, 0.0)
    clipped_high = np.minimum(low + size, sizes[of_video])
    kept = (clipped_low < clipped_high).all(axis=1)
    clipped = kept & ((clipped_low != low) | (clipped_high != low + size)).any(axis=1)
    floats = rows.floats.copy()
    # Where nothing is cut off the numbers stay as they are: x + width - x need not be width again.
    floats[clipped, :2] = clipped_low[clipped]
    floats[clipped, 2:4] = (clipped_high - clipped_low)[clipped]
    floats[clipped, 4] = floats[clipped, 2] * floats[clipped, 3]
    objects = Rows(OBJECTS, rows.integers[kept], floats[kept])
    counts = (
        np.bincount(of_video[which], minlength=len(annotations.videos)).tolist() for which in (clipped, ~kept)
    )
    names = [video.name for video in annotations.videos]
    num_clipped, num_dropped = (dict(zip(names, count, strict=True)) for count in counts)
    return dataclasses.replace(annotations, annotations=objects), num_clipped, num_dropped


def clip_bbox(
    bbox: tuple[float, float, float, float], image_size: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """Return (x, y, width, height) clipped to the frame, None where no area is left."""
    x, y, width, height = bbox
    x1, y1 = max(x, 0.0), max(y, 0.0)
    x2, y2 = min(x + width, float(image_size[1])), min(y + height, float(image_size[0]))
    if x1 >= x2 or y1 >= y2:
        return None
    # Where nothing is cut off the numbers stay as they are: x + width - x need not be width again.
    whole = (x1, y1, x2, y2) == (x, y, x + width, y + height)
    return bbox if whole else (x1, y1, x2 - x1, y2 - y1)


def _faults(annotations: VideoAnnotations) -> Iterator[str]:
    """Yield what cannot be true; later ones take for granted that the earlier ones are not there."""
    images, objects = annotations.image_rows.integers, annotations.object_rows.integers
    ids = {
        "videos": np.array([video.id for video in annotations.videos], np.int64),
        "images": images[:, 0],
        "annotations": objects[:, 0],
        "categories": np.array([category.id for category in annotations.categories], np.int64),
    }
    for kind, values in ids.items():
        place = first_repeated(values)
        if place is not None:
            yield f"{kind}: id {values[place]} occurs twice, expected each once"
    names = set[str]()
    for video in annotations.videos:
        yield from _video_faults(video, names)
        names.add(video.name)
    yield from _image_faults(annotations, images)
    yield from _object_faults(annotations, objects)


def _video_faults(video: VideoEntry, names: set[str]) -> Iterator[str]:
    if video.name in names:
        yield f"videos: name {video.name!r} occurs twice, expected each once"
    # A video's name becomes the name of its frames' file.
    if video.name in ("", ".", "..") or "/" in video.name or "\\" in video.name:
        yield f"video name {video.name!r} cannot be a file's name, expected one without slashes"
    outside = [frame for frame in video.vid_train_frames if not 0 <= frame < video.num_frames]
    if outside:
        yield (
            f"video {video.id}: vid_train_frames has {outside[0]}, which is outside {video.name}, "
            f"which has {video.num_frames} frames counted from 0"
        )


def _image_faults(annotations: VideoAnnotations, images: IntArray) -> Iterator[str]:
    of_video = places_of(images[:, 1], annotations.video_ids)
    for place in np.flatnonzero(of_video < 0):
        yield f"image {images[place, 0]}: video_id {images[place, 1]} is not in the list of videos"
    lengths = np.array([video.num_frames for video in annotations.videos], np.int64)
    for place in np.flatnonzero((images[:, 2] < 0) | (images[:, 2] >= lengths[of_video])):
        video = annotations.videos[of_video[place]]
        yield (
            f"image {images[place, 0]}: frame_id {images[place, 2]} is outside {video.name}, "
            f"which has {video.num_frames} frames counted from 0"
        )
    twice = first_repeated(images[:, 1:3])
    if twice is not None:
        yield f"images: (video_id, frame_id) {tuple(images[twice, 1:3].tolist())} occurs twice, expected each once"


def _object_faults(annotations: VideoAnnotations, objects: IntArray) -> Iterator[str]:
    images = annotations.image_rows.integers
    of_image = places_of(objects[:, 1], images[:, 0])
    for place in np.flatnonzero(of_image < 0):
        yield f"annotation {objects[place, 0]}: image_id {objects[place, 1]} is not in the list of images"
    for place in np.flatnonzero(images[of_image, 1] != objects[:, 2]):
        yield (
            f"annotation {objects[place, 0]}: video_id {objects[place, 2]}, "
            f"but its image belongs to video {images[of_image[place], 1]}"
        )
    categories = np.array(list(annotations.labels), np.int64)
    for place in np.flatnonzero(places_of(objects[:, 3], categories) < 0):
        yield f"annotation {objects[place, 0]}: category_id {objects[place, 3]} is not in the list of categories"
    bboxes = annotations.object_rows.floats[:, :4]
    for place in np.flatnonzero(~np.isfinite(bboxes).all(axis=1) | (bboxes[:, 2:] <= 0).any(axis=1)):
        yield (
            f"annotation {objects[place, 0]}: bbox {bboxes[place].tolist()} has no area, "
            "expected [x, y, width > 0, height > 0] in pixels"
        )
