"""Operating figures on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lstfe.evaluation.operating import JudgedDetections, operating_figures

R, W, N = "right", "wrong", "neither"


def figures(
    rows: list[tuple[float, int, str]], *, num_ground_truths: int, num_frames: int = 10, truth_frames: int = 5
) -> dict[str, float | None]:
    """Rows are (score, frame, verdict), best first; the first `truth_frames` frames have objects."""
    detections = JudgedDetections(
        np.array([score for score, *_ in rows], np.float64),
        np.array([frame for _, frame, _ in rows], np.int64),
        np.array([verdict == R for *_, verdict in rows], bool),
        np.array([verdict == W for *_, verdict in rows], bool),
    )
    return operating_figures(
        detections,
        num_ground_truths=num_ground_truths,
        truth_frames=np.arange(truth_frames),
        num_frames=num_frames,
    )


def test_without_ground_truth_all_is_null() -> None:
    assert set(figures([(0.9, 0, W)], num_ground_truths=0, truth_frames=0).values()) == {None}


def test_without_detections_nothing_is_found_and_there_is_no_threshold() -> None:
    assert figures([], num_ground_truths=3) == {
        "recall_at_0_1_fp": 0, "recall_at_1_fp": 0, "F1": 0, "F1_threshold": None, "fp_per_empty_frame": None,
    }  # fmt: skip


def test_recall_is_the_highest_with_so_few_false_positives_a_frame() -> None:
    rows = [(0.9, 0, R), (0.8, 1, W), (0.7, 1, R), (0.6, 2, W), (0.5, 2, R)]
    found = figures(rows, num_ground_truths=4)
    assert found["recall_at_0_1_fp"] == pytest.approx(2 / 4)  # one false positive in ten frames
    assert found["recall_at_1_fp"] == pytest.approx(3 / 4)


def test_equal_scores_pass_a_threshold_together() -> None:
    rows = [(0.9, 0, R), (0.8, 1, R), (0.8, 1, W), (0.8, 2, W)]
    assert figures(rows, num_ground_truths=2)["recall_at_0_1_fp"] == pytest.approx(1 / 2)


def test_a_first_score_with_too_many_false_positives_finds_nothing() -> None:
    rows = [(0.9, 0, R), (0.9, 1, W), (0.9, 1, W)]
    assert figures(rows, num_ground_truths=2)["recall_at_0_1_fp"] == 0


def test_false_positives_on_empty_frames_are_counted_at_the_best_f1() -> None:
    rows = [(0.9, 0, R), (0.8, 7, W), (0.7, 1, R), (0.6, 7, W), (0.5, 8, W)]
    found = figures(rows, num_ground_truths=2)
    assert found["F1"] == pytest.approx(2 * 2 / (3 + 2))
    assert found["F1_threshold"] == 0.7
    assert found["fp_per_empty_frame"] == pytest.approx(1 / 5)


def test_what_is_neither_right_nor_wrong_does_not_count() -> None:
    assert figures([(0.9, 0, N), (0.8, 0, R)], num_ground_truths=1)["F1"] == pytest.approx(1)


def test_of_equal_f1_the_highest_threshold_stands() -> None:
    rows = [
        (0.9, 0, R),
        (0.8, 1, W),
        (0.7, 7, W),
        (0.6, 2, R),
    ]  # F1 is 2/3 after the first and after the last
    found = figures(rows, num_ground_truths=2)
    assert found["F1"] == pytest.approx(2 / 3)
    assert found["F1_threshold"] == 0.9


def test_without_an_empty_frame_there_is_no_figure_for_them() -> None:
    found = figures([(0.9, 0, R)], num_ground_truths=1, truth_frames=10)
    assert found["fp_per_empty_frame"] is None
    assert found["F1_threshold"] == 0.9
