"""From the matches of one label to its precision and recall, per size bin and IoU threshold.

Shapes: as in matching.py, and R recall points, M limits of detections per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstfe.evaluation.matching import UNMATCHED, Flags, Floats, Ints, Matches


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """What every figure of a protocol is averaged from; NaN where a bin has no ground truth."""

    precision: Floats
    """(B, T, R) best precision at or past each recall point, 0 where it is not reached."""
    recall: Floats
    """(B, T, M)."""
    num_ground_truths: Ints
    """(B,) ground truths that count."""


def precision_and_recall(
    matches: Matches, *, ignored: Flags, outside: Flags, recall_points: Floats, limits: Sequence[int | None]
) -> PrecisionRecall:
    """Accumulate the matches of one label over all frames.

    `ignored` (B, G) and `outside` (B, D) mark what a bin does not count: a detection matched to an ignored
    ground truth, and an unmatched one outside the bin, are neither right nor wrong. `limits`: detections used
    per frame, None = all.
    """
    num_ground_truths = (~ignored).sum(axis=1)
    right, counted = _right_and_counted(matches, ignored, outside[:, matches.order])
    precision = _best_precision(right, counted, num_ground_truths, recall_points)
    rank = matches.rank[matches.candidates]
    found = [(right & (rank < (np.inf if limit is None else limit))).sum(axis=2) for limit in limits]
    recall = np.stack(found, axis=2) / _or_nan(num_ground_truths)[:, None, None]
    return PrecisionRecall(precision, recall, num_ground_truths)


def _right_and_counted(matches: Matches, ignored: Flags, outside: Flags) -> tuple[Flags, Ints]:
    """Return which candidates are right, and how many detections count up to and with each: two (B, T, C)."""
    is_matched = matches.ground_truths != UNMATCHED
    right = is_matched.copy()
    bins, levels, places = np.nonzero(is_matched)
    right[bins, levels, places] = ~ignored[bins, matches.ground_truths[bins, levels, places]]
    inside = ~outside
    inside_candidates = inside[:, None, matches.candidates]  # (B, 1, C)
    counts = right | (~is_matched & inside_candidates)
    # All detections but candidates are summed once for all thresholds; the candidates then correct that sum.
    up_to = np.cumsum(inside, axis=1)[:, None, matches.candidates]
    return right, up_to + np.cumsum(counts.astype(np.int64) - inside_candidates, axis=2)


def _best_precision(right: Flags, counted: Ints, num_ground_truths: Ints, recall_points: Floats) -> Floats:
    """Return the best precision from each recall point on: (B, T, C), (B, T, C), (B,), (R,) -> (B, T, R)."""
    found = np.cumsum(right, axis=2)
    # Precision peaks where a detection is right, as only candidates can be. spacing(1): pycocotools' formula.
    precision = np.where(right, found / (counted + np.spacing(1.0)), 0.0)
    best = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
    best = np.concatenate((best, np.zeros((*best.shape[:2], 1))), axis=2)  # 0 past the last one found
    at_points = np.full((*right.shape[:2], len(recall_points)), np.nan)
    for b, number in enumerate(num_ground_truths):
        if number == 0:
            continue
        needed = 1 + np.searchsorted(np.arange(1, number + 1) / number, recall_points, side="left")
        for t in range(right.shape[1]):
            at_points[b, t] = best[b, t, np.searchsorted(found[b, t], needed, side="left")]
    return at_points


def _or_nan(counts: Ints) -> Floats:
    return np.where(counts > 0, counts, np.nan)
