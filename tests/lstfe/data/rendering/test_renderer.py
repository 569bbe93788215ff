from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from lstfe.config import RenderConfig
from lstfe.data.coco_video import load_annotations
from lstfe.data.folders import FolderError
from lstfe.data.importers.fl_drones import read_fl_drones
from lstfe.data.rendering.renderer import render_data_set, render_video, visible_box
from lstfe.data.rendering.silhouettes import Patch
from lstfe.data.video import Frame, read_video

SMALL = RenderConfig(
    num_train_videos=1,
    num_val_videos=1,
    num_test_videos=1,
    num_frames=12,
    image_size=(64, 96),
    drone_size_px=(10.0, 24.0),
)
BARE = dataclasses.replace(
    SMALL,
    num_frames=30,
    noise=0.0,
    camera_pan_px=0.0,
    camera_shake_px=0.0,
    light_change=0.0,
    flashes_per_frame=0.0,
    decoys_per_frame=0.0,
    birds_per_frame=0.0,
    num_branches=0,
)
"""Everything stands still but the drones (and the clouds, which `clutter` switches off)."""


def _render(config: RenderConfig, seed: int = 0) -> tuple[list[Frame], list[list[tuple[int, int, int, int]]]]:
    frames, boxes = zip(*render_video(config, np.random.default_rng(seed)), strict=True)
    return list(frames), list(boxes)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_without_drones_there_are_no_boxes(tmp_path: Path) -> None:
    report = render_data_set(dataclasses.replace(SMALL, present_fraction=0.0), tmp_path / "raw")
    assert [counts["boxes"] for counts in report["splits"].values()] == [0, 0, 0]
    assert (tmp_path / "raw" / "fl_drones" / "Video_001.txt").read_bytes() == b""


def test_the_result_is_a_complete_raw_data_set(tiny_raw: Path) -> None:
    names = [f"Video_{number:03d}" for number in (1, 2, 3, 4)]
    assert sorted(p.name for p in tiny_raw.iterdir()) == [
        "annotations",
        "fl_drones",
        "report.json",
        "splits",
        "videos",
    ]
    assert sorted(p.stem for p in (tiny_raw / "videos").iterdir()) == names
    splits = {split: (tiny_raw / "splits" / f"{split}.txt").read_text().split() for split in ("train", "val")}
    assert splits == {"train": names[:2], "val": names[2:3]}
    for split in ("train", "val", "test"):
        annotations = load_annotations(tiny_raw / "annotations" / f"{split}.json")
        for video in annotations.videos:
            lines = read_fl_drones(tiny_raw / "fl_drones" / f"{video.name}.txt")
            assert (video.width, video.height, video.num_frames) == (96, 64, 16)
            assert sum(len(line.boxes) for line in lines) == sum(
                len(annotations.objects(video.name, frame)) for frame in range(16)
            )
    report = json.loads((tiny_raw / "report.json").read_text())
    assert report["render"]["num_train_videos"] == 2


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("first", 1), ("second", 1), ("third", 2)):
        render_data_set(dataclasses.replace(SMALL, seed=seed), tmp_path / name)
    first, second, third = (_contents(tmp_path / name) for name in ("first", "second", "third"))
    assert first == second
    assert first.keys() == third.keys()
    assert all(first[name] != third[name] for name in first if name.startswith("videos"))


def test_more_training_videos_leave_the_test_videos_as_they_are(tmp_path: Path) -> None:
    for name, count in (("few", 1), ("many", 2)):
        render_data_set(dataclasses.replace(SMALL, num_train_videos=count), tmp_path / name)
    few, many = (tmp_path / name / "videos" for name in ("few", "many"))
    assert (few / "Video_003.mp4").read_bytes() == (many / "Video_004.mp4").read_bytes()


def test_videos_hold_what_was_rendered(tiny_raw: Path) -> None:
    frames = list(read_video(tiny_raw / "videos" / "Video_002.mp4"))
    assert len(frames) == 16
    # Sensor noise survives the encoder, or neighbouring frames would tell nothing new.
    assert np.abs(frames[7].astype(int) - frames[8]).mean() > 2


@pytest.mark.parametrize("seed", range(4))
def test_boxes_are_tight_around_what_the_drones_change(seed: int) -> None:
    with_drones, boxes = _render(
        dataclasses.replace(BARE, clutter=0.0, drone_opacity=0.0, drone_contrast=(0.4, 0.4)), seed
    )
    empty = np.median(np.stack(with_drones), axis=0)
    checked = 0
    for frame, frame_boxes in zip(with_drones, boxes, strict=True):
        if len(frame_boxes) != 1:
            continue
        change = np.abs(frame - empty).max(axis=2)
        if change.max() < 40:
            continue  # It is just appearing.
        changed = change > 0.25 * change.max()
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert np.abs(found - frame_boxes[0]).max() <= 2
        checked += 1
    assert checked >= 3


def test_drones_move_and_decoys_do_not() -> None:
    drones, _ = _render(dataclasses.replace(BARE, clutter=0.0, present_fraction=1.0))
    decoys, boxes = _render(
        dataclasses.replace(
            BARE, clutter=0.0, present_fraction=0.0, decoys_per_frame=3.0, drone_contrast=(0.3, 0.3)
        )
    )
    assert np.abs(drones[0].astype(int) - drones[8]).max() > 20
    assert np.abs(decoys[0].astype(int) - decoys[8]).max() <= 1
    assert not any(boxes)


def test_flashes_last_one_frame_and_have_no_box() -> None:
    config = dataclasses.replace(
        BARE, clutter=0.0, present_fraction=0.0, flashes_per_frame=1.0, drone_contrast=(0.3, 0.3)
    )
    frames, boxes = _render(config)
    still = np.median(np.stack(frames), axis=0)
    changed = np.stack([np.abs(frame - still).max(axis=2) > 20 for frame in frames])
    assert 8 < changed.any(axis=(1, 2)).sum() < 28
    # Flashes at the same place in successive frames are chance.
    assert (changed[1:] & changed[:-1]).sum() < 0.1 * changed.sum()
    assert not any(boxes)


def test_a_drone_may_be_as_plain_or_as_invisible_as_asked() -> None:
    def largest_change(contrast: float) -> float:
        config = dataclasses.replace(
            BARE, clutter=0.0, drone_contrast=(contrast, contrast), drone_opacity=0.0
        )
        frames, boxes = _render(config)
        assert any(boxes)
        return float(np.abs(np.stack(frames) - np.median(np.stack(frames), axis=0)).max())

    assert largest_change(0.7) > 100
    assert largest_change(0.001) <= 1


def test_rendering_again_replaces_a_data_set_but_no_other_folder(tmp_path: Path) -> None:
    small = dataclasses.replace(SMALL, num_frames=2)
    render_data_set(small, tmp_path / "raw")
    render_data_set(dataclasses.replace(small, num_frames=3), tmp_path / "raw")
    assert load_annotations(tmp_path / "raw" / "annotations" / "val.json").videos[0].num_frames == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    with pytest.raises(FolderError, match="is not replaced"):
        render_data_set(small, tmp_path / "mine")


def test_progress_is_reported_after_each_video(tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    small = dataclasses.replace(SMALL, num_frames=2)
    render_data_set(small, tmp_path / "raw", report_progress=lambda *call: calls.append(call))
    assert calls == [(1, 3, "Video_001"), (2, 3, "Video_002"), (3, 3, "Video_003")]


# --------------------------------------------------------------------------------------- visible_box

SQUARE = Patch(np.pad(np.ones((4, 6), np.float32), 2), left=8, top=18)
"""Covers x 10..16, y 20..24."""


def _covered(rows: slice, columns: slice) -> np.ndarray:
    branches = np.zeros((64, 96), np.float32)
    branches[rows, columns] = 1
    return branches


def test_a_free_object_has_its_tight_box() -> None:
    assert visible_box(SQUARE, np.zeros((64, 96), np.float32), 1.0) == (10, 20, 16, 24)


def test_a_half_hidden_object_has_the_box_of_what_is_seen() -> None:
    assert visible_box(SQUARE, _covered(slice(0, 64), slice(0, 13)), 1.0) == (13, 20, 16, 24)


def test_an_object_that_is_hardly_seen_has_no_box() -> None:
    assert visible_box(SQUARE, _covered(slice(0, 64), slice(0, 15)), 1.0) is None
    assert visible_box(SQUARE, _covered(slice(0, 64), slice(0, 96)), 1.0) is None
    assert visible_box(SQUARE, np.zeros((64, 96), np.float32), 0.2) is None


@pytest.mark.parametrize(
    ("left", "top", "expected"),
    [
        (-5, 18, (0, 20, 3, 24)),  # half of it is still inside
        (-8, 18, None),
        (90, 18, (92, 20, 96, 24)),
        (200, 18, None),
        (8, -100, None),
        (8, 60, (10, 62, 16, 64)),
    ],
)
def test_an_object_at_the_edge_is_clipped_or_left_out(
    left: int, top: int, expected: tuple[int, int, int, int] | None
) -> None:
    patch = dataclasses.replace(SQUARE, left=left, top=top)
    assert visible_box(patch, np.zeros((64, 96), np.float32), 1.0) == expected
