"""The vectorised matcher against the published greedy loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lstfe.evaluation.encounters import Flags, GroundTruths, ScoredBoxes
from lstfe.evaluation.matching import UNMATCHED, Matches, MatchRule, match

COCO_RULE = MatchRule(thresholds=(0.5, 0.75), best_only=False, crowd_by_detection=True, max_detections=100)
OVERLAP_RULE = MatchRule(
    thresholds=(0.5,), best_only=False, crowd_by_detection=True, max_detections=None, counted_first=False
)
VOC_RULE = MatchRule(thresholds=(0.5,), best_only=True, crowd_by_detection=False, max_detections=None)


def random_tables(
    seed: int, *, num_truths: int = 40, num_detections: int = 120
) -> tuple[GroundTruths, ScoredBoxes]:
    random = np.random.default_rng(seed)

    def boxes(number: int) -> np.ndarray:
        return np.concatenate(
            [random.integers(0, 12, (number, 2)) * 2.0, random.choice([12.0, 16.0, 18.0], (number, 2))],
            axis=1,
        )

    frames = random.integers(0, 6, num_truths)
    truths = GroundTruths(
        frames,
        np.ones(num_truths, np.int64),
        boxes(num_truths),
        np.ones(num_truths),
        random.random(num_truths) < 0.2,
    )
    scores = random.integers(0, 10, num_detections) / 10
    found = boxes(num_detections)
    return truths, ScoredBoxes(
        random.integers(0, 7, num_detections), np.ones(num_detections, np.int64), found, scores
    )


def slow_iou(a: np.ndarray, b: np.ndarray, share_of_first: bool) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = a[2] * a[3] + b[2] * b[3] - width * height
    return float(width * height / (a[2] * a[3] if share_of_first else union))


def slow_match(
    truths: GroundTruths, detections: ScoredBoxes, ignored: np.ndarray, rule: MatchRule, threshold: float
) -> dict[int, int]:
    """Detection row -> ground truth row, one bin and one threshold, detection by detection."""
    order = sorted(range(len(detections)), key=lambda d: (-detections.scores[d], detections.frames[d], d))
    taken: set[int] = set()
    used: dict[int, int] = {}
    matched: dict[int, int] = {}
    for d in order:
        frame = int(detections.frames[d])
        used[frame] = used.get(frame, 0) + 1
        if rule.max_detections is not None and used[frame] > rule.max_detections:
            continue
        overlaps = {
            g: slow_iou(
                detections.boxes[d], truths.boxes[g], bool(truths.crowd[g]) and rule.crowd_by_detection
            )
            for g in range(len(truths))
            if truths.frames[g] == frame
        }
        if rule.best_only:
            best = max(overlaps, key=lambda g: (overlaps[g], -g), default=None)
            wanted = [] if best is None or overlaps[best] < threshold or best in taken else [best]
        else:
            wanted = [g for g, overlap in overlaps.items() if overlap >= threshold and g not in taken]
        if wanted and rule.counted_first:
            matched[d] = max(wanted, key=lambda g: (not ignored[g], overlaps[g], g))
        elif wanted:
            matched[d] = max(
                wanted,
                key=lambda g: (not truths.crowd[g], overlaps[g], not ignored[g], g if ignored[g] else -g),
            )
        if wanted and not truths.crowd[matched[d]]:
            taken.add(matched[d])
    return matched


def as_dictionary(matches: Matches, size: int, level: int) -> dict[int, int]:
    rows = matches.order[matches.candidates]
    found = zip(rows.tolist(), matches.ground_truths[size, level].tolist(), strict=True)
    return {row: truth for row, truth in found if truth != UNMATCHED}


def two_bins(truths: GroundTruths) -> Flags:
    """Everything, and the half of the ground truths that is less than 16 wide."""
    return np.stack([truths.crowd, truths.crowd | (truths.boxes[:, 2] >= 16)])


def test_nothing_matches_nothing() -> None:
    truths, detections = random_tables(0, num_truths=0, num_detections=0)
    matches = match(truths, detections, two_bins(truths), COCO_RULE)
    assert matches.order.size == 0
    assert matches.ground_truths.shape == (2, 2, 0)


@pytest.mark.parametrize(("num_truths", "num_detections"), [(0, 5), (5, 0)])
def test_one_empty_side_leaves_all_unmatched(num_truths: int, num_detections: int) -> None:
    truths, detections = random_tables(0, num_truths=num_truths, num_detections=num_detections)
    matches = match(truths, detections, two_bins(truths), COCO_RULE)
    assert len(matches.order) == num_detections
    assert (matches.ground_truths == UNMATCHED).all()


@pytest.mark.parametrize("rule", [COCO_RULE, VOC_RULE, OVERLAP_RULE], ids=["coco", "voc", "overlap"])
@pytest.mark.parametrize("seed", range(8))
def test_matches_equal_the_slow_loop(rule: MatchRule, seed: int) -> None:
    truths, detections = random_tables(seed)
    ignored = two_bins(truths) if not rule.best_only else truths.crowd[None]
    matches = match(truths, detections, ignored, rule)
    for size in range(len(ignored)):
        for level, threshold in enumerate(rule.thresholds):
            expected = slow_match(truths, detections, ignored[size], rule, threshold)
            assert len(expected) >= 5
            assert as_dictionary(matches, size, level) == expected


def test_a_bin_s_and_a_stretch_s_matches_are_those_of_the_whole() -> None:
    truths, detections = random_tables(4)
    matches = match(truths, detections, two_bins(truths), COCO_RULE)
    assert 0 < len(matches.rivals) <= len(matches.candidates)
    whole = matches.ground_truths
    for size, level in ((0, 0), (1, 1)):
        assert matches.matched_to(size, level).tolist() == whole[size, level].tolist()
    part = matches.part(20, 90)
    inside = (matches.candidates >= 20) & (matches.candidates < 90)
    assert part.order.tolist() == matches.order[20:90].tolist()
    assert part.candidates.tolist() == (matches.candidates[inside] - 20).tolist()
    assert part.ground_truths.tolist() == whole[:, :, inside].tolist()


def test_only_the_best_detections_of_a_frame_are_used() -> None:
    truths, detections = random_tables(3)
    rule = MatchRule(thresholds=(0.5,), best_only=False, crowd_by_detection=True, max_detections=4)
    matches = match(truths, detections, truths.crowd[None], rule)
    assert np.bincount(detections.frames[matches.order]).max() == 4
    assert matches.rank.max() == 3
    assert as_dictionary(matches, 0, 0) == slow_match(truths, detections, truths.crowd, rule, 0.5)


def test_a_box_without_area_matches_nothing_and_gives_no_nan() -> None:
    truths = GroundTruths(
        np.zeros(1, np.int64),
        np.ones(1, np.int64),
        np.array([[4.0, 4.0, 8.0, 8.0]]),
        np.ones(1),
        np.zeros(1, bool),
    )
    point = ScoredBoxes(
        np.zeros(1, np.int64), np.ones(1, np.int64), np.array([[6.0, 6.0, 0.0, 0.0]]), np.ones(1)
    )
    with np.errstate(all="raise"):
        assert (match(truths, point, truths.crowd[None], COCO_RULE).ground_truths == UNMATCHED).all()


def test_boxes_that_grow_overlap_more() -> None:
    truths, detections = random_tables(0, num_truths=1, num_detections=1)
    truths.crowd[0] = False
    truths.boxes[0], detections.boxes[0], detections.frames[0] = (0, 0, 8, 8), (4, 0, 8, 8), truths.frames[0]
    for grow_px, is_matched in ((0.0, False), (4.0, True)):  # IoU 1/3, then of 12 x 12 boxes: 1/2
        rule = replace(OVERLAP_RULE, grow_px=grow_px)
        matches = match(truths, detections, np.zeros((1, 1), bool), rule)
        assert (matches.ground_truths != UNMATCHED).any() == is_matched


def test_a_small_ground_truth_asks_for_less_where_there_is_a_tolerance() -> None:
    truths, detections = random_tables(0, num_truths=1, num_detections=1)
    truths.crowd[0] = False
    truths.boxes[0], detections.boxes[0], detections.frames[0] = (
        (0, 0, 10, 10),
        (5, 0, 10, 10),
        truths.frames[0],
    )
    for tolerance_px, is_matched in ((None, False), (10.0, True), (1.0, False)):  # asks for 0.5, 0.25, 0.5
        rule = replace(OVERLAP_RULE, tolerance_px=tolerance_px)
        matches = match(truths, detections, np.zeros((1, 1), bool), rule)
        assert (matches.ground_truths != UNMATCHED).any() == is_matched
