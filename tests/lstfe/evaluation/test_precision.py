"""Accumulation on cases that can be counted by hand; the protocols' tests compare whole figures."""

from __future__ import annotations

import numpy as np
import pytest

from lstfe.evaluation.matching import UNMATCHED, Matches
from lstfe.evaluation.precision import LabelMatches, PrecisionRecall, precision_and_recall

POINTS = np.array([0.0, 0.5, 1.0])


def accumulate(
    found: list[int],
    *,
    num_truths: int,
    ignored: tuple[int, ...] = (),
    weighing: dict[int, float] | None = None,
    epsilon: float = 0.0,
) -> PrecisionRecall:
    """Detections in score order, each in a frame of its own; `found` are ground truths or UNMATCHED.

    Unmatched detections weigh 1 unless `weighing` (place -> weight) says otherwise.
    """
    number = len(found)
    matches = Matches(
        order=np.arange(number),
        rank=np.zeros(number, np.int64),
        candidates=np.flatnonzero(np.array(found, np.int64) != UNMATCHED),
        common=np.array([[truth for truth in found if truth != UNMATCHED]], np.int32),
        rivals=np.zeros(0, np.int64),
        by_bin=np.zeros((1, 1, 0), np.int32),
    )
    counted = ~np.isin(np.arange(num_truths), ignored)[None]
    weights = np.ones((1, number))
    for place, weight in (weighing or {}).items():
        weights[0, place] = weight
    return precision_and_recall(
        LabelMatches(matches, counted, counted.sum(axis=1), weights),
        recall_points=POINTS,
        limits=(None,),
        precision_epsilon=epsilon,
        recall_epsilon=epsilon,
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
    assert accumulate([UNMATCHED, 0], num_truths=1, weighing={0: 0.0}).precision[0, 0] == pytest.approx(
        [1, 1, 1]
    )


def test_a_matched_detection_outside_the_bin_counts() -> None:
    assert accumulate([UNMATCHED, 0], num_truths=1, weighing={1: 0.0}).precision[0, 0] == pytest.approx(
        [0.5] * 3
    )


def test_a_detection_of_an_ignored_ground_truth_is_neither_right_nor_wrong() -> None:
    curve = accumulate([1, 0], num_truths=2, ignored=(1,))
    assert curve.precision[0, 0] == pytest.approx([1, 1, 1])
    assert curve.num_ground_truths.tolist() == [1]


def test_an_unmatched_detection_counts_by_its_weight() -> None:
    curve = accumulate([UNMATCHED, 0], num_truths=1, weighing={0: 0.25})
    assert curve.precision[0, 0] == pytest.approx([0.8] * 3)


def test_the_area_is_that_of_the_best_precision_over_recall() -> None:
    curve = accumulate([0, UNMATCHED, UNMATCHED, 1], num_truths=4)
    assert curve.area[0, 0] == pytest.approx(0.25 * 1 + 0.25 * 0.5)


def test_epsilons_stand_in_the_denominators() -> None:
    curve = accumulate([0, UNMATCHED], num_truths=1, epsilon=0.5)
    assert curve.recall[0, 0] == pytest.approx([1 / 1.5])
    assert curve.area[0, 0] == pytest.approx(1 / 1.5 * 1 / 1.5)
