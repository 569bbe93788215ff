"""Raw data set -> prepared data set: every frame randomly accessible, every box inside its frame."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lstfe.config import PrepareConfig
from lstfe.data.coco_video import (
    VideoAnnotations,
    VideoEntry,
    clip_to_frames,
    load_annotations,
    save_annotations,
)
from lstfe.data.faults import AnnotationError
from lstfe.data.folders import REPORT_NAME, new_folder
from lstfe.data.footage import ReportProgress, read_as_annotated
from lstfe.data.frames import write_frames
from lstfe.data.object_sizes import size_histogram
from lstfe.data.splits import UNSPLIT, annotation_files
from lstfe.data.video import Frame, VideoError

SIZE_EDGES_PX = (0, 8, 16, 32, 96)
"""Edges of the report's size histogram: square root of a box's area, pixels; the last bin is open."""


def prepare_data_set(
    raw: Path, prepared: Path, config: PrepareConfig, *, report_progress: ReportProgress | None = None
) -> dict[str, Any]:
    """Write `prepared` from the raw data set `raw` and return its report; nothing is left behind on an error.

    Frames keep their frame_id (their place in the video) whatever `frame_stride` skips. A raw data set without
    a split (all.json) becomes the split `train`.
    """
    splits = _load_splits(raw, config.frame_stride)
    videos = _videos_with_frames(splits.values())
    with new_folder(prepared, replace=True) as folder:
        (folder / "frames").mkdir()
        for done, video in enumerate(videos, start=1):
            frames = _wanted_frames(raw / video.file_name, video, _frames_of(video.name, splits.values()))
            write_frames(folder / "frames" / f"{video.name}.zip", frames, config.jpeg_quality)
            if report_progress is not None:
                report_progress(done, len(videos), video.name)
        report = {**dataclasses.asdict(config), "splits": _write_splits(folder / "annotations", splits)}
        (folder / REPORT_NAME).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _write_splits(directory: Path, splits: Mapping[str, VideoAnnotations]) -> dict[str, dict[str, Any]]:
    """Write the final annotations of each split and return what they hold."""
    directory.mkdir()
    described = {}
    for split, loaded in splits.items():
        clipped, num_clipped, num_dropped = clip_to_frames(loaded)
        save_annotations(clipped, directory / f"{split}.json")
        described[split] = _describe(clipped, num_clipped, num_dropped)
    return described


def _load_splits(raw: Path, frame_stride: int) -> dict[str, VideoAnnotations]:
    files = annotation_files(raw)
    paths = {split: path for split, path in files.items() if split != UNSPLIT} or {"train": files[UNSPLIT]}
    splits = {split: load_annotations(path) for split, path in paths.items()}
    names = {split: annotations.label_names for split, annotations in splits.items()}
    first = next(iter(names))
    for split in names:
        if names[split] != names[first]:
            raise AnnotationError(
                f"{paths[split]}: categories {names[split]}, expected {names[first]} as in {first}.json"
            )
    return {split: _keep_every(annotations, frame_stride) for split, annotations in splits.items()}


def _keep_every(annotations: VideoAnnotations, frame_stride: int) -> VideoAnnotations:
    if frame_stride == 1:
        thinned = annotations
    else:
        thinned = annotations.with_images(annotations.image_rows.integers[:, 2] % frame_stride == 0)
    videos = [_move_train_frames(video, annotations, thinned) for video in annotations.videos]
    return dataclasses.replace(thinned, videos=videos)


def _move_train_frames(
    video: VideoEntry, received: VideoAnnotations, thinned: VideoAnnotations
) -> VideoEntry:
    """Let the nearest frame that is left stand in for each of a video's `vid_train_frames`."""
    if not video.vid_train_frames:
        return video
    left = np.array(thinned.frame_ids(video.name), np.int64)
    named = np.intersect1d(video.vid_train_frames, received.frame_ids(video.name))
    nearest = left[np.abs(left[:, None] - named).argmin(axis=0)] if len(left) else left
    return dataclasses.replace(video, vid_train_frames=tuple(np.unique(nearest).tolist()))


def _videos_with_frames(splits: Collection[VideoAnnotations]) -> list[VideoEntry]:
    """Return each video once of which a split has frames."""
    videos: dict[str, VideoEntry] = {}
    for split in splits:
        for video in split.videos:
            videos.setdefault(video.name, video)
    return [video for video in videos.values() if _frames_of(video.name, splits)]


def _frames_of(video: str, splits: Iterable[VideoAnnotations]) -> set[int]:
    """Return the frames that any split wants of a video."""
    having = [split for split in splits if video in split.video_by_name]
    return {frame_id for split in having for frame_id in split.frame_ids(video)}


def _wanted_frames(path: Path, video: VideoEntry, wanted: set[int]) -> Iterator[tuple[int, Frame]]:
    """Yield (frame_id, frame); the video is decoded to its end even where its last frames are not wanted."""
    frame_id = -1
    for frame_id, frame in enumerate(read_as_annotated(path, video)):
        if frame_id in wanted:
            yield frame_id, frame
    if frame_id < max(wanted):
        raise VideoError(
            f"{path}: ends after {frame_id + 1} frames, but frame {max(wanted)} is annotated; "
            "replace the file or import again"
        )


def _describe(
    annotations: VideoAnnotations, num_clipped: Mapping[str, int], num_dropped: Mapping[str, int]
) -> dict[str, Any]:
    sizes_px = np.sqrt(annotations.object_rows.floats[:, 2:4].prod(axis=1))
    num_objects = {video.name: annotations.num_objects(video.name) for video in annotations.videos}
    videos = {
        name: {
            "frames": len(counts),
            "frames_without_objects": int((counts == 0).sum()),
            "boxes": int(counts.sum()),
            "boxes_clipped": num_clipped[name],
            "boxes_dropped": num_dropped[name],
        }
        for name, counts in num_objects.items()
    }
    num_frames = len(annotations.images)
    num_empty = sum(video["frames_without_objects"] for video in videos.values())
    return {
        "frames": num_frames,
        "frames_without_objects": num_empty,
        "share_without_objects": round(num_empty / max(num_frames, 1), 4),
        "boxes": len(annotations.annotations),
        "boxes_clipped": sum(num_clipped.values()),
        "boxes_dropped": sum(num_dropped.values()),
        "boxes_by_size_px": size_histogram(sizes_px, SIZE_EDGES_PX),
        "videos": videos,
    }
