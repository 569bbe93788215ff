"""The raw data set that every importer writes: videos, COCO-VID annotations by split, a report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lstfe.data.coco_video import (
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    VideoAnnotations,
    VideoEntry,
    save_annotations,
)
from lstfe.data.folders import REPORT_NAME
from lstfe.data.video import VideoError, VideoInfo

SPLITS = ("train", "val", "test")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True, slots=True)
class RawObject:
    """One object in one frame: (x, y, width, height) in pixels; `instance` is its number in the video."""

    frame_id: int
    bbox: tuple[float, float, float, float]
    category_id: int
    instance: int


@dataclass(slots=True)
class RawVideo:
    """One video on its way into a raw data set; `splits` says which of its frames belong to which split."""

    name: str
    path: Path
    info: VideoInfo
    objects: list[RawObject]
    splits: dict[str, range] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    """What the importer changed, for the report: boxes clipped, dropped, ..."""


def find_video(directory: Path, name: str) -> Path:
    """Return the one video file called `name`, of any known container; VideoError unless there is one."""
    found = [directory / f"{name}{suffix}" for suffix in VIDEO_SUFFIXES]
    found = [path for path in found if path.is_file()]
    if not found:
        raise VideoError(f"{directory / name}: no such video, expected one of {', '.join(VIDEO_SUFFIXES)}")
    if len(found) > 1:
        raise VideoError(
            f"{directory}: {name} is there as {' and '.join(p.name for p in found)}, expected once"
        )
    return found[0]


def place_video(source: Path, directory: Path, *, link: bool) -> None:
    """Copy a video into a folder, or hard-link it where `link` and the file system allow."""
    target = directory / source.name
    if target.exists() and target.samefile(source):
        return
    if link:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:
            pass  # Another file system: a copy serves as well.
    shutil.copyfile(source, target)


def write_annotations(
    raw: Path, videos: Sequence[RawVideo], category_names: Sequence[str], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write annotations/<split>.json and report.json into `raw` and return the report; `about` opens it."""
    categories = [CategoryEntry(place, name) for place, name in enumerate(category_names, start=1)]
    directory = raw / "annotations"
    directory.mkdir(exist_ok=True)
    for split in SPLITS:
        (directory / f"{split}.json").unlink(missing_ok=True)
        chosen = [video for video in videos if split in video.splits]
        if chosen:
            save_annotations(_build_split(chosen, split, categories), directory / f"{split}.json")
    report = {
        **about,
        **_total_counts(videos),
        "splits": _count_splits(videos),
        "videos": {video.name: _count_video(video) for video in videos},
    }
    (raw / REPORT_NAME).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _build_split(videos: Sequence[RawVideo], split: str, categories: list[CategoryEntry]) -> VideoAnnotations:
    built = VideoAnnotations([], [], [], categories)
    num_instances = 0
    for video_id, video in enumerate(videos, start=1):
        frames, info = video.splits[split], video.info
        first_image = len(built.images) + 1
        built.videos.append(_video_entry(video, video_id))
        built.images.extend(
            ImageEntry(first_image + place, video_id, frame_id, info.width, info.height)
            for place, frame_id in enumerate(frames)
        )
        objects = [item for item in video.objects if item.frame_id in frames]
        numbers = sorted({item.instance for item in objects})
        for item in objects:
            built.annotations.append(
                AnnotationEntry(
                    id=len(built.annotations) + 1,
                    image_id=first_image + frames.index(item.frame_id),
                    video_id=video_id,
                    category_id=item.category_id,
                    bbox=item.bbox,
                    area=item.bbox[2] * item.bbox[3],
                    instance_id=num_instances + numbers.index(item.instance) + 1,
                )
            )
        num_instances += len(numbers)
    return built


def _video_entry(video: RawVideo, video_id: int) -> VideoEntry:
    return VideoEntry(
        id=video_id,
        name=video.name,
        file_name=f"videos/{video.path.name}",
        width=video.info.width,
        height=video.info.height,
        num_frames=video.info.num_frames,
        frame_rate=video.info.frame_rate,
    )


def _total_counts(videos: Sequence[RawVideo]) -> dict[str, int]:
    names = dict.fromkeys(name for video in videos for name in video.counts)
    return {name: sum(video.counts.get(name, 0) for video in videos) for name in names}


def _count_splits(videos: Sequence[RawVideo]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        parts = [(video, video.splits[split]) for video in videos if split in video.splits]
        if parts:
            counts[split] = {
                "videos": len(parts),
                "frames": sum(len(frames) for _, frames in parts),
                "boxes": sum(item.frame_id in frames for video, frames in parts for item in video.objects),
            }
    return counts


def _count_video(video: RawVideo) -> dict[str, Any]:
    return {
        "splits": {split: [frames.start, frames.stop] for split, frames in video.splits.items()},
        "frames": video.info.num_frames,
        "image_size": [video.info.height, video.info.width],
        "frames_with_objects": len({item.frame_id for item in video.objects}),
        "boxes": len(video.objects),
        "instances": len({item.instance for item in video.objects}),
        **video.counts,
    }
