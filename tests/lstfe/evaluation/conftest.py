"""What these tests share: a prepared data set of two short videos, in which a bright object moves over a dark ground,
scenes made by hand and at random, and a slow IoU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lstfe.data.coco_video import (
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    VideoAnnotations,
    VideoEntry,
    load_annotations,
    save_annotations,
)
from lstfe.data.frames import write_frames
from lstfe.evaluation.records import DetectionRecord

HEIGHT, WIDTH = 64, 96
NUM_FRAMES = {"left": 5, "right": 9}

Scene = tuple[VideoAnnotations, list[DetectionRecord]]
Box = tuple[float, float, float, float]
OBJECT: Box = (100.0, 100.0, 20.0, 20.0)
FAR: Box = (10.0, 10.0, 20.0, 20.0)


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of both videos; the split `val` holds all of them, `test` the second half of each video."""
    directory = tmp_path_factory.mktemp("prepared")
    (directory / "frames").mkdir()
    (directory / "annotations").mkdir()
    for video, number in NUM_FRAMES.items():
        frames = ((frame_id, _frame(video, frame_id)) for frame_id in range(number))
        write_frames(directory / "frames" / f"{video}.zip", frames, 95)
    whole = _annotations()
    save_annotations(whole, directory / "annotations" / "val.json")
    later = [
        image for image in whole.images if image.frame_id >= _video(whole, image.video_id).num_frames // 2
    ]
    ids = {image.id for image in later}
    objects = [entry for entry in whole.annotations if entry.image_id in ids]
    half = VideoAnnotations(whole.videos, later, objects, whole.categories)
    save_annotations(half, directory / "annotations" / "test.json")
    return directory


@pytest.fixture
def annotations(prepared_dir: Path) -> VideoAnnotations:
    """The split `val`, fresh for each test."""
    return load_annotations(prepared_dir / "annotations" / "val.json")


def _video(annotations: VideoAnnotations, video_id: int) -> VideoEntry:
    return next(video for video in annotations.videos if video.id == video_id)


def _corner(video: str, frame_id: int) -> tuple[int, int]:
    return (20 + 4 * frame_id if video == "right" else 60 - 4 * frame_id), 24


def _frame(video: str, frame_id: int) -> np.ndarray:
    """The red channel tells the frame, so that a test can see which one it was given."""
    frame = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    frame[..., 0] = 10 * frame_id
    x, y = _corner(video, frame_id)
    frame[y : y + 10, x : x + 14] = 230
    return frame


def _annotations() -> VideoAnnotations:
    videos, images, objects = [], [], []
    for video_id, (video, number) in enumerate(NUM_FRAMES.items(), start=1):
        videos.append(VideoEntry(video_id, video, f"videos/{video}.mp4", WIDTH, HEIGHT, number))
        for frame_id in range(number):
            images.append(ImageEntry(len(images) + 1, video_id, frame_id, WIDTH, HEIGHT))
            x, y = _corner(video, frame_id)
            objects.append(
                AnnotationEntry(
                    len(objects) + 1, len(images), video_id, 1, (x, y, 14.0, 10.0), 140.0, 0, video_id
                )
            )
    return VideoAnnotations(videos, images, objects, [CategoryEntry(1, "drone")])


def one_frame(objects: list[tuple[str, Box]], detections: list[tuple[str, Box, float]]) -> Scene:
    """A frame of drones and birds."""
    names = ["drone", "bird"]
    entries = [
        AnnotationEntry(i, 1, 1, 1 + names.index(name), box, box[2] * box[3], 0, i)
        for i, (name, box) in enumerate(objects, start=1)
    ]
    categories = [CategoryEntry(i, name) for i, name in enumerate(names, start=1)]
    annotations = VideoAnnotations(
        [VideoEntry(1, "v", "v.mp4", 300, 200, 1)], [ImageEntry(1, 1, 0, 300, 200)], entries, categories
    )
    return annotations, [DetectionRecord("v", 0, box, value, name) for name, box, value in detections]


def slow_iou(a: Box, b: Box, *, more: float = 0.0) -> float:
    """IoU of two boxes whose sides are `more` pixels longer than they say."""
    width = min(a[0] + a[2], b[0] + b[2]) + more - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) + more - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((a[2] + more) * (a[3] + more) + (b[2] + more) * (b[3] + more) - common)


@pytest.fixture(scope="session")
def random_scene() -> Callable[..., Scene]:
    """Return a builder of annotations and detections near and far from them, scores all different."""

    def build(
        seed: int,
        *,
        num_videos: int = 5,
        num_frames: int = 4,
        categories: tuple[str, ...] = ("drone", "bird"),
    ) -> Scene:
        random = np.random.default_rng(seed)
        videos = [VideoEntry(v, f"v{v}", f"v{v}.mp4", 300, 200, num_frames) for v in range(1, num_videos + 1)]
        images = [
            ImageEntry(1 + i, 1 + i // num_frames, i % num_frames, 300, 200)
            for i in range(num_videos * num_frames)
        ]
        objects: list[AnnotationEntry] = []
        records: list[DetectionRecord] = []
        for image in images:
            for instance in range(random.integers(0, 4)):
                x, y, width, height = (*random.uniform(0, 200, 2), *random.uniform(6, 60, 2))
                category = int(random.integers(len(categories)))
                crowd = int(random.random() < 0.1)
                objects.append(
                    AnnotationEntry(
                        len(objects) + 1, image.id, image.video_id, category + 1, (x, y, width, height),
                        width * height, crowd, instance + 1,
                    )
                )  # fmt: skip
                for _ in range(random.integers(0, 4)):
                    shift = random.normal(0, 0.15, 4) * (width, height, width, height)
                    found = tuple((np.array((x, y, width, height)) + shift).clip(1).tolist())
                    label = category if random.random() < 0.8 else int(random.integers(len(categories)))
                    score = float(random.random())
                    records.append(
                        DetectionRecord(f"v{image.video_id}", image.frame_id, found, score, categories[label])
                    )
            for _ in range(random.integers(0, 3)):
                box = (*random.uniform(0, 250, 2).tolist(), *random.uniform(6, 60, 2).tolist())
                label = int(random.integers(len(categories)))
                records.append(
                    DetectionRecord(
                        f"v{image.video_id}", image.frame_id, box, float(random.random()), categories[label]
                    )
                )
        entries = [CategoryEntry(number, name) for number, name in enumerate(categories, start=1)]
        return VideoAnnotations(videos, images, objects, entries), records

    return build
