"""Accumulation on cases that can be counted by hand; the protocols' tests compare whole figures."""

from __future__ import annotations

import numpy as np
import pytest

from lstfe.evaluation.matching import UNMATCHED, Matches
from lstfe.evaluation.precision import PrecisionRecall, precision_and_recall

POINTS = np.array([0.0, 0.5, 1.0])


def accumulate(
    found: list[int], *, num_truths: int, ignored: tuple[int, ...] = (), outside: tuple[int, ...] = ()
) -> PrecisionRecall:
    """Detections in score order, each in a frame of its own; `found` are ground truths or UNMATCHED."""
    number = len(found)
    matches = Matches(
        order=np.arange(number),
        rank=np.zeros(number, np.int64),
        candidates=np.flatnonzero(np.array(found, np.int64) != UNMATCHED),
        ground_truths=np.array([[[truth for truth in found if truth != UNMATCHED]]], np.int32),
    )
    return precision_and_recall(
        matches,
        ignored=np.isin(np.arange(num_truths), ignored)[None],
        outside=np.isin(np.arange(number), outside)[None],
        recall_points=POINTS,
        limits=(None,),
    )


def test_without_ground_truth_all_is_nan() -> None:
    curve = accumulate([UNMATCHED, UNMATCHED], num_truths=0)
    assert np.isnan(curve.precision).all()
    assert np.isnan(curve.recall).all()


def test_without_detections_all_is_zero() -> None:
    curve = accumulate([], num_truths=2)
    assert curve.precision.tolist() == [[[0, 0, 0]]]
    assert curve.recall.tolist() == [[[0]]]


def test_precision_is_the_best_at_or_past_each_recall_point() -> None:
    curve = accumulate([UNMATCHED, 0, 1, UNMATCHED], num_truths=2)
    assert curve.precision[0, 0] == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    assert curve.recall[0, 0] == pytest.approx([1])


def test_a_recall_that_is_not_reached_has_precision_zero() -> None:
    assert accumulate([0, UNMATCHED], num_truths=2).precision[0, 0] == pytest.approx([1, 1, 0])


def test_an_unmatched_detection_outside_the_bin_does_not_count() -> None:
    assert accumulate([UNMATCHED, 0], num_truths=1, outside=(0,)).precision[0, 0] == pytest.approx([1, 1, 1])


def test_a_matched_detection_outside_the_bin_counts() -> None:
    assert accumulate([UNMATCHED, 0], num_truths=1, outside=(1,)).precision[0, 0] == pytest.approx([0.5] * 3)


def test_a_detection_of_an_ignored_ground_truth_is_neither_right_nor_wrong() -> None:
    curve = accumulate([1, 0], num_truths=2, ignored=(1,))
    assert curve.precision[0, 0] == pytest.approx([1, 1, 1])
    assert curve.num_ground_truths.tolist() == [1]
