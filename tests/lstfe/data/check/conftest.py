"""A raw data set without a fault, and what becomes of it when one is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lstfe.config import ModelConfig
from lstfe.data.check.report import CheckReport, check_data_set
from lstfe.data.video import Frame, VideoWriter

HEIGHT, WIDTH, NUM_FRAMES = 64, 96, 10
VIDEOS = {"train": ("a", "b"), "val": ("c",)}

Content = dict[str, dict[str, Any]]
"""Split -> its COCO-VID file."""
Change = Callable[[Content, Path], None]


def background(seed: int) -> Frame:
    """A soft random texture, (64, 96, 3)."""
    coarse = np.random.default_rng(seed).integers(40, 200, (HEIGHT // 8, WIDTH // 8), np.uint8)
    return np.array(Image.fromarray(coarse).resize((WIDTH, HEIGHT)).convert("RGB"), np.uint8)


def write_video(path: Path, picture: Frame, num_frames: int = NUM_FRAMES) -> None:
    with VideoWriter(path, 30, (picture.shape[0], picture.shape[1])) as video:
        for frame_id in range(num_frames):
            frame = picture.copy()
            frame[12:28, 12:28] = 10 * frame_id
            video.write(frame)


def _content(split: str) -> dict[str, Any]:
    """Objects of 16x16 pixels about the center of a cell, where an anchor of 16 pixels is."""
    content: dict[str, Any] = {
        "videos": [],
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "drone"}],
    }
    for video_id, name in enumerate(VIDEOS[split], start=1):
        content["videos"].append({"id": video_id, "name": name, "file_name": f"videos/{name}.mp4", "width": WIDTH,
                                  "height": HEIGHT, "num_frames": NUM_FRAMES, "frame_rate": 30.0})  # fmt: skip
        for frame_id in range(NUM_FRAMES):
            number = len(content["images"]) + 1
            size = {"width": WIDTH, "height": HEIGHT}
            content["images"].append({"id": number, "video_id": video_id, "frame_id": frame_id, **size})
            content["annotations"].append({"id": number, "image_id": number, "video_id": video_id, "category_id": 1,
                                           "bbox": [12, 12, 16, 16], "instance_id": video_id})  # fmt: skip
    return content


@pytest.fixture(scope="session")
def _videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check") / "videos"
    folder.mkdir()
    for seed, name in enumerate(("a", "b", "c")):
        write_video(folder / f"{name}.mp4", background(seed))
    return folder


@pytest.fixture
def write_raw(_videos: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that writes the data set with a change, and returns its folder."""

    def write(change: Change = lambda content, raw: None) -> Path:
        raw = tmp_path / "raw"
        shutil.copytree(_videos, raw / "videos")
        content = {split: _content(split) for split in VIDEOS}
        change(content, raw)
        (raw / "annotations").mkdir()
        for split, rows in content.items():
            (raw / "annotations" / f"{split}.json").write_text(json.dumps(rows))
        return raw

    return write


@pytest.fixture
def check(write_raw: Callable[..., Path], tiny: Callable[..., ModelConfig]) -> Callable[..., CheckReport]:
    """A function that checks the data set with a change, for the tiny network."""
    return lambda *change: check_data_set(write_raw(*change), tiny())
