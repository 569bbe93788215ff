"""What drift is measured on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lstfe.data.video import VideoWriter
from lstfe.types import Detections, FrameDetections
from pipelines.drift import QUANTITIES
from pipelines.footage_values import brightness, find_footage, incoming_values, sharpness, spread
from pipelines.operations_config import DriftConfig


def _frame(value: int) -> Any:
    return np.full((20, 30, 3), value, np.uint8)


def test_brightness_goes_from_black_to_white() -> None:
    assert brightness(_frame(0)) == 0.0
    assert brightness(_frame(255)) == pytest.approx(1.0)
    green = _frame(0)
    green[..., 1] = 255
    assert brightness(green) == pytest.approx(0.587)


def test_sharpness_falls_with_blur_and_is_zero_where_nothing_is() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    blurred = [
        np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(radius))) for radius in (1, 2, 4)
    ]

    values = [sharpness(frame) for frame in (noise, *blurred)]

    assert values == sorted(values, reverse=True)
    assert sharpness(_frame(90)) == pytest.approx(0.0, abs=1e-6)
    assert sharpness(np.zeros((2, 2, 3), np.uint8)) == 0.0


@pytest.mark.parametrize(
    ("frames", "count", "expected"),
    [([], 4, []), ([7], 4, [7]), ([1, 2, 3], 4, [1, 2, 3]), (range(101), 3, [0, 50, 100])],
)
def test_frames_are_evenly_spread(frames: Any, count: int, expected: list[int]) -> None:
    assert spread(frames, count) == expected


def test_footage_is_found_as_videos_and_as_folders_of_pictures(tmp_path: Path) -> None:
    assert find_footage(tmp_path / "absent") == []
    for name in ("monday/a.MP4", "monday/notes.txt", "tuesday/b/1.jpg", "tuesday/b/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert find_footage(tmp_path) == [tmp_path / "monday" / "a.MP4", tmp_path / "tuesday" / "b"]


class _Detector:
    """Finds in frame i: i + 1 boxes of 4x9 pixels, half of them too unsure to count; answers a frame late."""

    pool = None

    def __init__(self) -> None:
        self._pushed = 0

    def push(self, frame: Any) -> list[FrameDetections]:
        self._pushed += 1
        return [self._found(self._pushed - 2)] if self._pushed > 1 else []

    def finish(self) -> list[FrameDetections]:
        return [self._found(self._pushed - 1)]

    def _found(self, index: int) -> FrameDetections:
        count = 2 * (index + 1)
        boxes = np.tile(np.array([1, 1, 5, 10], np.float32), (count, 1))
        scores = np.tile(np.array([0.9, 0.1], np.float32), count // 2)
        return FrameDetections(index, Detections(boxes, scores, np.ones(count, np.int64)))


def test_incoming_footage_is_measured_frame_by_frame_and_video_by_video(tmp_path: Path) -> None:
    for name, value in (("dark", 20), ("bright", 220)):
        with VideoWriter(tmp_path / f"{name}.mp4", 25.0, (20, 30)) as writer:
            for _ in range(5):
                writer.write(_frame(value))
    bundle: Any = SimpleNamespace(detector=lambda backend, num_frames: _Detector())

    wanted = DriftConfig(frames_per_video=3, max_frames=5)
    found = incoming_values(bundle, tmp_path, find_footage(tmp_path), wanted, jpeg_quality=95)

    assert set(found) == set(QUANTITIES)
    dark, bright = "dark.mp4", "bright.mp4"
    assert found["brightness"][dark] == pytest.approx([20 / 255] * 3, abs=0.02)
    assert found["brightness"][bright] == pytest.approx([220 / 255] * 3, abs=0.02)
    assert found["detections_per_frame"][dark] == [1.0, 3.0, 5.0]
    assert found["score"][dark] == pytest.approx([0.9] * 9)
    assert found["box_size_px"][dark] == pytest.approx([6.0] * 9)


def test_videos_of_the_same_name_in_several_folders_stay_apart(tmp_path: Path) -> None:
    names = ["a/videos/cam1.mp4", "a/videos/cam1.avi", "b/videos/cam1.mp4"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with VideoWriter(tmp_path / name, 25.0, (20, 30)) as writer:
            writer.write(_frame(90))
    (tmp_path / "b" / "pictures").mkdir()
    Image.fromarray(_frame(90)).save(tmp_path / "b" / "pictures" / "1.png")
    bundle: Any = SimpleNamespace(detector=lambda backend, num_frames: _Detector())

    for folder, expected in (
        (tmp_path, {*names, "b/pictures"}),
        (tmp_path / "b" / "pictures", {"pictures"}),
    ):
        found = incoming_values(bundle, folder, find_footage(folder), DriftConfig(), jpeg_quality=95)
        assert set(found["brightness"]) == set(found["detections_per_frame"]) == expected
