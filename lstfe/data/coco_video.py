"""COCO-VID annotations: typed, validated on reading, indexed by video and frame.

ids are 1-based, `frame_id` is 0-based, `bbox` is (x, y, width, height) in pixels of the video. A detector's
label is the 1-based position of a category in the list (0 is the background).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from lstfe.errors import UserError
from lstfe.types import FloatArray, IntArray

Row = TypeVar("Row", "VideoEntry", "ImageEntry", "AnnotationEntry", "CategoryEntry")


class AnnotationError(UserError):
    """An annotation file says something that cannot be true."""


@dataclass(frozen=True, slots=True)
class VideoEntry:
    """One video; `num_frames` counts the whole file, of which `images` may list a part."""

    id: int
    name: str
    file_name: str
    width: int
    height: int
    num_frames: int
    frame_rate: float = 30.0
    vid_train_frames: tuple[int, ...] = ()
    """Frames that training may take as current frames (as COCO-VID files of ImageNet-VID name them); empty for all."""


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One frame of a video, with or without objects."""

    id: int
    video_id: int
    frame_id: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class AnnotationEntry:
    """One object in one frame; `instance_id` is the same wherever the object is seen again."""

    id: int
    image_id: int
    video_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float = 0.0
    iscrowd: int = 0
    instance_id: int = 0


@dataclass(frozen=True, slots=True)
class CategoryEntry:
    """A kind of object."""

    id: int
    name: str


@dataclass(frozen=True)
class VideoAnnotations:
    """All annotations of one split."""

    videos: list[VideoEntry]
    images: list[ImageEntry]
    annotations: list[AnnotationEntry]
    categories: list[CategoryEntry]

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
    def images_by_video(self) -> dict[str, list[ImageEntry]]:
        """Video name -> its frames in this split, ascending; videos in the file's order."""
        images: dict[int, list[ImageEntry]] = {video.id: [] for video in self.videos}
        for image in self.images:
            images[image.video_id].append(image)
        return {v.name: sorted(images[v.id], key=lambda image: image.frame_id) for v in self.videos}

    @cached_property
    def annotations_by_image(self) -> dict[int, list[AnnotationEntry]]:
        """Image id -> its objects; a frame without objects is absent."""
        objects: dict[int, list[AnnotationEntry]] = {}
        for annotation in self.annotations:
            objects.setdefault(annotation.image_id, []).append(annotation)
        return objects

    @cached_property
    def _image_ids(self) -> dict[tuple[str, int], int]:
        names = {video.id: video.name for video in self.videos}
        return {(names[image.video_id], image.frame_id): image.id for image in self.images}

    def frame_ids(self, video: str) -> list[int]:
        """Return the frames of a video that belong to this split, ascending."""
        return [image.frame_id for image in self.images_by_video[video]]

    def current_frames(self, video: str) -> list[int]:
        """Return the frames of `frame_ids` that training may take as current frames: those named, all without any."""
        named, frame_ids = set(self.video_by_name[video].vid_train_frames), self.frame_ids(video)
        return [frame_id for frame_id in frame_ids if frame_id in named] or frame_ids

    def objects(self, video: str, frame_id: int) -> list[AnnotationEntry]:
        """Return the objects of one frame; KeyError where the split has no such frame."""
        return self.annotations_by_image.get(self._image_ids[video, frame_id], [])

    def boxes(self, video: str, frame_id: int) -> tuple[FloatArray, IntArray]:
        """Return the boxes (G, 4) xyxy in pixels of the video, and the labels (G,) >= 1, of one frame."""
        objects = self.objects(video, frame_id)
        corners = [(x, y, x + width, y + height) for x, y, width, height in (o.bbox for o in objects)]
        labels = [self.labels[o.category_id] for o in objects]
        return np.array(corners, np.float32).reshape(-1, 4), np.array(labels, np.int64)


def load_annotations(path: Path | str) -> VideoAnnotations:
    """Read and validate a COCO-VID file; unknown keys are ignored, boxes may pass the frame's edge."""
    path = Path(path)
    content = _read_json(path)
    annotations = VideoAnnotations(
        videos=_rows(content, "videos", VideoEntry, path),
        images=_rows(content, "images", ImageEntry, path),
        annotations=_rows(content, "annotations", AnnotationEntry, path),
        categories=_rows(content, "categories", CategoryEntry, path),
    )
    _check(annotations, path)
    return annotations


def save_annotations(annotations: VideoAnnotations, path: Path) -> None:
    """Write a COCO-VID file; the same annotations give the same bytes."""
    content = {
        field.name: [_as_json(row) for row in getattr(annotations, field.name)]
        for field in dataclasses.fields(annotations)
    }
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _as_json(row: Row) -> dict[str, Any]:
    values = dataclasses.asdict(row)
    if not values.get("vid_train_frames", True):
        del values["vid_train_frames"]
    return values


def clip_to_frames(annotations: VideoAnnotations) -> tuple[VideoAnnotations, dict[str, int], dict[str, int]]:
    """Clip every box to its frame and drop what keeps no area; returns also both counts by video name."""
    videos = {video.id: video for video in annotations.videos}
    kept: list[AnnotationEntry] = []
    num_clipped, num_dropped = ({video.name: 0 for video in annotations.videos} for _ in range(2))
    for annotation in annotations.annotations:
        video = videos[annotation.video_id]
        bbox = clip_bbox(annotation.bbox, (video.height, video.width))
        if bbox is None:
            num_dropped[video.name] += 1
            continue
        if bbox != annotation.bbox:
            num_clipped[video.name] += 1
            annotation = dataclasses.replace(annotation, bbox=bbox, area=bbox[2] * bbox[3])
        kept.append(annotation)
    return dataclasses.replace(annotations, annotations=kept), num_clipped, num_dropped


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


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such annotation file") from None
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{path}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise AnnotationError(f"{path}: expected a JSON object with videos, images, annotations, categories")
    return content


def _rows(content: Mapping[str, Any], key: str, kind: type[Row], path: Path) -> list[Row]:
    if key not in content:
        raise AnnotationError(f"{path}: has no {key!r}, expected a COCO-VID file")
    adapter: TypeAdapter[list[Row]] = TypeAdapter(list[kind])  # type: ignore[valid-type]
    try:
        return adapter.validate_python(content[key])
    except ValidationError as error:
        raise AnnotationError(f"{path}: {_first_fault(error, key)}") from None


def _first_fault(error: ValidationError, key: str) -> str:
    fault = error.errors()[0]
    place = ".".join(str(part) for part in (key, *fault["loc"]))
    return f"{place}: {fault['msg']}, found {fault['input']!r}"


def _check(annotations: VideoAnnotations, path: Path) -> None:
    for key in ("videos", "images", "annotations", "categories"):
        _check_unique((row.id for row in getattr(annotations, key)), f"{path}: {key}: id")
    _check_unique((video.name for video in annotations.videos), f"{path}: videos: name")
    videos = {video.id: video for video in annotations.videos}
    for video in annotations.videos:
        _check_video(video, path)
    for image in annotations.images:
        _check_image(image, videos, path)
    _check_unique(
        ((i.video_id, i.frame_id) for i in annotations.images), f"{path}: images: (video_id, frame_id)"
    )
    images = {image.id: image for image in annotations.images}
    for annotation in annotations.annotations:
        _check_annotation(annotation, images, annotations.labels, path)


def _check_unique(values: Iterable[object], what: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise AnnotationError(f"{what} {value!r} occurs twice, expected each once")
        seen.add(value)


def _check_video(video: VideoEntry, path: Path) -> None:
    # A video's name becomes the name of its frames' file.
    if video.name in ("", ".", "..") or "/" in video.name or "\\" in video.name:
        raise AnnotationError(
            f"{path}: video name {video.name!r} cannot be a file's name, expected one without slashes"
        )
    outside = [frame for frame in video.vid_train_frames if not 0 <= frame < video.num_frames]
    if outside:
        raise AnnotationError(
            f"{path}: video {video.id}: vid_train_frames has {outside[0]}, which is outside {video.name}, "
            f"which has {video.num_frames} frames counted from 0"
        )


def _check_image(image: ImageEntry, videos: Mapping[int, VideoEntry], path: Path) -> None:
    video = videos.get(image.video_id)
    if video is None:
        raise AnnotationError(
            f"{path}: image {image.id}: video_id {image.video_id} is not in the list of videos"
        )
    if not 0 <= image.frame_id < video.num_frames:
        raise AnnotationError(
            f"{path}: image {image.id}: frame_id {image.frame_id} is outside {video.name}, "
            f"which has {video.num_frames} frames counted from 0"
        )


def _check_annotation(
    annotation: AnnotationEntry, images: Mapping[int, ImageEntry], labels: Mapping[int, int], path: Path
) -> None:
    where = f"{path}: annotation {annotation.id}"
    image = images.get(annotation.image_id)
    if image is None:
        raise AnnotationError(f"{where}: image_id {annotation.image_id} is not in the list of images")
    if image.video_id != annotation.video_id:
        raise AnnotationError(
            f"{where}: video_id {annotation.video_id}, but its image belongs to video {image.video_id}"
        )
    if annotation.category_id not in labels:
        raise AnnotationError(
            f"{where}: category_id {annotation.category_id} is not in the list of categories"
        )
    if not all(math.isfinite(value) for value in annotation.bbox) or min(annotation.bbox[2:]) <= 0:
        raise AnnotationError(
            f"{where}: bbox {list(annotation.bbox)} has no area, "
            "expected [x, y, width > 0, height > 0] in pixels"
        )
