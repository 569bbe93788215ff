"""From the matches of one label to its precision and recall, per bin and IoU threshold.

Shapes: as in matching.py, and R recall points, M limits of detections per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstfe.evaluation.encounters import Flags, Floats, Ints
from lstfe.evaluation.matching import UNMATCHED, Matches

SPACING = float(np.spacing(1.0))
"""What pycocotools adds to the denominator of a precision."""


@dataclass(frozen=True, slots=True)
class LabelMatches:
    """The matches of one label, and what the bins make of them."""

    matches: Matches
    counted: Flags
    """(B, G) ground truths that count, by the rows that `matches` names."""
    num_ground_truths: Ints
    """(B,) how many of this label count."""
    weights: Sequence[Floats | Flags]
    """B times (D',) in score order: how much a detection weighs as a false one while it is unmatched, 0..1."""


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """What every figure of a protocol is averaged from; NaN where a bin has no ground truth."""

    precision: Floats
    """(B, T, R) best precision at or past each recall point, 0 where it is not reached."""
    recall: Floats
    """(B, T, M)."""
    num_ground_truths: Ints
    """(B,) ground truths that count."""
    area: Floats
    """(B, T) area under the curve of the best precision at or past each recall."""


def precision_and_recall(
    label: LabelMatches,
    *,
    recall_points: Floats,
    limits: Sequence[int | None],
    precision_epsilon: float = SPACING,
    recall_epsilon: float = 0.0,
) -> PrecisionRecall:
    """Accumulate the matches of one label over all frames.

    A detection matched to a ground truth that does not count is neither right nor wrong. `limits`: detections
    used per frame, None = all. The epsilons are what a protocol's tool adds to the denominators.
    """
    num_bins, num_levels = len(label.counted), len(label.matches.common)
    precision = np.full((num_bins, num_levels, len(recall_points)), np.nan)
    recall = np.full((num_bins, num_levels, len(limits)), np.nan)
    area = np.full((num_bins, num_levels), np.nan)
    for b in np.flatnonzero(label.num_ground_truths).tolist():
        number = label.num_ground_truths[b]
        recalls = np.arange(1, number + 1) / (number + recall_epsilon)
        needed = np.searchsorted(recalls, recall_points, side="left")
        for t, (places, wrong) in enumerate(_right_and_wrong(label, b)):
            found = np.arange(1, len(places) + 1)
            best = np.maximum.accumulate((found / (wrong + found + precision_epsilon))[::-1])[::-1]
            precision[b, t] = np.append(best, 0.0)[np.minimum(needed, len(best))]
            area[b, t] = best.sum() / (number + recall_epsilon)
            rank = label.matches.rank[places]
            within = [len(rank) if limit is None else np.count_nonzero(rank < limit) for limit in limits]
            recall[b, t] = np.array(within) / (number + recall_epsilon)
    return PrecisionRecall(precision, recall, label.num_ground_truths, area)


def _right_and_wrong(label: LabelMatches, b: int) -> list[tuple[Ints, Floats]]:
    """Return, per threshold, the places of the right detections and how many wrong ones come before each.

    Precision peaks at right detections, so no other place is needed.
    """
    candidates, counted = label.matches.candidates, label.counted[b]
    weights = label.weights[b][candidates]
    before = np.cumsum(label.weights[b], dtype=np.float64)[candidates]
    found = []
    for level in range(len(label.matches.common)):
        rows = label.matches.matched_to(b, level)
        matched = np.flatnonzero(rows != UNMATCHED)
        right = np.flatnonzero(counted[rows[matched]])
        # All detections were taken for wrong ones in `before`; the matched ones are not.
        matched_before = np.cumsum(weights[matched], dtype=np.float64)[right]
        matched = matched[right]
        found.append((candidates[matched], before[matched] - matched_before))
    return found
