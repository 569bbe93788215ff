"""Motion IoU against a plain loop over the published definition."""

from __future__ import annotations

import numpy as np
import pytest

from lstfe.evaluation.motion import motion_iou


def slow_motion_iou(
    videos: np.ndarray, tracks: np.ndarray, frame_ids: np.ndarray, boxes: np.ndarray
) -> list[float]:
    motion = []
    for i in range(len(boxes)):
        ious = []
        for j in range(len(boxes)):
            same = videos[i] == videos[j] and tracks[i] == tracks[j] >= 0
            if same and 0 < abs(int(frame_ids[i]) - int(frame_ids[j])) <= 10:
                (ax, ay, aw, ah), (bx, by, bw, bh) = boxes[i].tolist(), boxes[j].tolist()
                width = max(0.0, min(ax + aw, bx + bw) - max(ax, bx))
                height = max(0.0, min(ay + ah, by + bh) - max(ay, by))
                ious.append(width * height / (aw * ah + bw * bh - width * height))
        motion.append(sum(ious) / len(ious) if ious else float("nan"))
    return motion


def test_no_annotation_has_no_motion() -> None:
    none = np.zeros(0, np.int64)
    assert motion_iou(none, none, none, np.zeros((0, 4))).tolist() == []


@pytest.mark.parametrize("seed", range(3))
def test_motion_equals_a_plain_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    cells = random.permutation(2 * 3 * 40)[:150]
    videos, tracks, frame_ids = cells // 120, cells // 40 % 3 - 1, cells % 40
    boxes = np.concatenate([random.uniform(0, 6, (150, 2)), random.uniform(8, 14, (150, 2))], axis=1)
    expected = slow_motion_iou(videos, tracks, frame_ids, boxes)
    assert motion_iou(videos, tracks, frame_ids, boxes) == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert np.isnan(expected).sum() >= 40  # those of unknown track


def test_what_stands_still_has_one_and_what_jumps_has_zero() -> None:
    frames, ones = np.arange(4), np.ones(4, np.int64)
    still = np.tile([5.0, 5.0, 8.0, 8.0], (4, 1))
    jumping = still + np.arange(4)[:, None] * [20.0, 0.0, 0.0, 0.0]
    assert motion_iou(ones, ones, frames, still).tolist() == [1, 1, 1, 1]
    assert motion_iou(ones, ones, frames, jumping).tolist() == [0, 0, 0, 0]


def test_eleven_frames_away_is_too_far() -> None:
    two, ones = np.array([0, 11]), np.ones(2, np.int64)
    assert np.isnan(motion_iou(ones, ones, two, np.ones((2, 4)))).all()


def test_a_track_twice_in_one_frame_is_no_neighbour_of_itself() -> None:
    frames, ones = np.array([0, 0, 1]), np.ones(3, np.int64)
    boxes = np.array([[0.0, 0, 10, 10], [50.0, 0, 10, 10], [0.0, 0, 10, 10]])
    assert motion_iou(ones, ones, frames, boxes).tolist() == [1, 0, 0.5]
