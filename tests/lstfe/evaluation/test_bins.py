"""Weights of false detections in bins, on cases that can be counted by hand; whole figures: test_presets.py."""

from __future__ import annotations

import numpy as np
import pytest

from lstfe.evaluation.bins import counted_by_motion, counted_by_size, motion_weights, size_weights
from lstfe.evaluation.encounters import Encounters, GroundTruths, ScoredBoxes

SLOW, FAST = (0.9, 1.0), (0.0, 0.7)


def truths(rows: list[tuple[int, float, float]], *, crowd: tuple[int, ...] = ()) -> GroundTruths:
    """Rows are (frame, x, motion); all boxes are 10 x 10."""
    boxes = np.array([(x, 0.0, 10.0, 10.0) for _, x, _ in rows]).reshape(-1, 4)
    return GroundTruths(
        np.array([frame for frame, *_ in rows], np.int64),
        np.ones(len(rows), np.int64),
        boxes,
        boxes[:, 2] * boxes[:, 3],
        np.isin(np.arange(len(rows)), crowd),
        np.array([motion for *_, motion in rows], np.float64),
    )


def weights(of: GroundTruths, places: list[tuple[int, float]], *, by_frame: bool) -> list[list[float]]:
    """Weights in slow and fast of detections at (frame, x)."""
    boxes = np.array([(x, 0.0, 10.0, 10.0) for _, x in places])
    frames, scores = np.array([frame for frame, _ in places]), np.linspace(1, 0.5, len(places))
    scene = Encounters(of, ScoredBoxes(frames, np.ones(len(places), np.int64), boxes, scores), by_label=True)
    counted = counted_by_motion(of, [SLOW, FAST])
    return motion_weights(scene, scene.pairs(), counted, by_frame=by_frame).T.tolist()


def test_without_bins_or_ground_truths_nothing_counts() -> None:
    assert counted_by_motion(truths([]), []).shape == (0, 0)
    assert counted_by_size(truths([]), [(0, 100)]).shape == (1, 0)
    assert weights(truths([]), [(0, 5.0)], by_frame=True) == [[0.0, 0.0]]


def test_crowds_and_unknown_motion_are_in_no_bin() -> None:
    of = truths([(0, 0, 0.95), (0, 20, float("nan")), (0, 40, 0.95)], crowd=(2,))
    assert counted_by_motion(of, [SLOW, FAST]).tolist() == [[True, False, False], [False] * 3]


def test_sizes_include_both_ends() -> None:
    weights = size_weights(np.array([99.0, 100.0, 101.0]), [(0, 100), (100, 200)])
    assert [row.tolist() for row in weights] == [
        [1, 1, 0],
        [0, 1, 1],
    ]


@pytest.mark.parametrize("by_frame", [True, False])
def test_a_false_detection_is_the_fault_of_the_object_it_overlaps_most(by_frame: bool) -> None:
    of = truths([(0, 0, 0.95), (0, 12, 0.5)])
    assert weights(of, [(0, 4.0), (0, 8.0)], by_frame=by_frame) == [[1, 0], [0, 1]]


def test_a_stray_weighs_the_share_of_the_bin() -> None:
    of = truths([(0, 0, 0.95), (0, 12, 0.5), (1, 0, 0.5), (1, 12, 0.5)])
    assert weights(of, [(0, 100.0), (2, 0.0)], by_frame=False) == [[0.25, 0.75]] * 2


def test_by_frame_a_stray_is_judged_by_the_objects_of_its_frame() -> None:
    of = truths([(0, 0, 0.95), (0, 12, 0.5), (0, 24, 0.5), (1, 0, 0.5)])
    mixed, only_fast, empty = weights(of, [(0, 100.0), (1, 100.0), (2, 0.0)], by_frame=True)
    assert mixed == pytest.approx(
        [2 / 3, 1 / 3]
    )  # the share outside of the bin: MEGA's rule, not a slip here
    assert only_fast == [0, 1]
    assert empty == [0.25, 0.75]
