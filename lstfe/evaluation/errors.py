"""What kind of mistake costs how much: the error types of TIDE (Bolya et al., ECCV 2020, section 2), one each.

| kind           | a wrong detection that                                      | mended by                         |
|----------------|-------------------------------------------------------------|-----------------------------------|
| `localisation` | overlaps an object of its class by 0.1 to 0.5               | moving it onto the object         |
| `confusion`    | overlaps an object of another class by 0.5 or more          | giving it the object's class      |
| `duplicate`    | overlaps an object of its class that is found already       | taking it away                    |
| `background`   | overlaps no object by 0.1                                   | taking it away                    |
| `both`         | overlaps an object of another class by 0.1 to 0.5           | taking it away                    |
| `missed`       | (an object that is not found, nor meant by the first two)   | taking the object away            |

The first kind that fits counts, in this order. A mended detection is right if its object is free and it is the
best-scoring one that is mended onto it; else it is taken away. Matching is that of `coco` at IoU 0.5; crowds and
what is matched to them take no part. The gain of a kind is AP50 (101 points) with all of its errors mended, less
AP50; gains do not add up to what is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lstfe.evaluation.encounters import Encounters, Flags, Floats, Ints
from lstfe.evaluation.matching import UNMATCHED, MatchRule, match
from lstfe.evaluation.records import ScoredFrames

FOUND_IOU = 0.5
"""From here on a detection has found an object."""
NEAR_IOU = 0.1
"""Below it a detection has nothing to do with an object."""
DETECTION_KINDS = ("localisation", "confusion", "duplicate", "background", "both")
KINDS = (*DETECTION_KINDS, "missed")

_RULE = MatchRule(thresholds=(FOUND_IOU,), best_only=False, crowd_by_detection=True, max_detections=100)
_RECALL_POINTS = np.linspace(0.0, 1.0, 101)
_RIGHT, _NOT_COUNTED = -1, -2


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What each detection and each ground truth is."""

    kinds: Ints
    """(D,) place in DETECTION_KINDS; negative where it is right or does not count."""
    objects: Ints
    """(D,) row of the ground truth that it found, or is mended onto; UNMATCHED where there is none."""
    missed: Flags
    """(G,)."""
    order: Ints
    """(D,) detections by score descending; ties by frame, then by row."""

    @property
    def right(self) -> Flags:
        """(D,) detections that found an object."""
        return np.asarray(self.kinds == _RIGHT)

    @property
    def wrong(self) -> Flags:
        """(D,) detections that are an error of some kind."""
        return np.asarray(self.kinds >= 0)


@dataclass(frozen=True, slots=True)
class ErrorBreakdown:
    """How many errors of each kind there are, and what mending them all would give."""

    ap50: float | None
    """As of `coco`; None without ground truth."""
    counts: dict[str, int]
    gains: dict[str, float | None]
    """Points of AP50, 0..1."""

    def to_json(self) -> dict[str, Any]:
        """Return kind -> count and gain, and AP50."""
        kinds = {kind: {"count": self.counts[kind], "gain_AP50": self.gains[kind]} for kind in KINDS}
        return {"AP50": self.ap50, **kinds}


def break_down(scored: ScoredFrames) -> ErrorBreakdown:
    """Sort all errors into kinds, and mend each kind alone."""
    verdicts = judge(scored)
    counts = {kind: int((verdicts.kinds == place).sum()) for place, kind in enumerate(DETECTION_KINDS)}
    counts["missed"] = int(verdicts.missed.sum())
    num_objects = _count_objects(scored, ~scored.truths.crowd)
    labels = scored.detections.labels
    ap50 = _mean_ap(scored, verdicts, labels, verdicts.right, verdicts.wrong, num_objects)
    gains: dict[str, float | None] = dict.fromkeys(KINDS)
    if ap50 is not None:
        for kind in KINDS:
            gains[kind] = _mended(scored, verdicts, kind, num_objects) - ap50
    return ErrorBreakdown(ap50, counts, gains)


def judge(scored: ScoredFrames) -> Verdicts:
    """Find out what each detection and each ground truth is."""
    truths, detections = scored.truths, scored.detections
    kinds = np.full(len(detections), _NOT_COUNTED)
    objects = np.full(len(detections), UNMATCHED)
    for label in range(1, len(scored.label_names) + 1):
        truth_rows, rows = (np.flatnonzero(column.labels == label) for column in (truths, detections))
        of_label = truths.select(truth_rows)
        matches = match(of_label, detections.select(rows), of_label.crowd[None], _RULE)
        kinds[rows[matches.order]] = len(DETECTION_KINDS)  # wrong, of a kind still to be found
        matched = matches.matched_to(0, 0)
        taken = matched != UNMATCHED
        finders, found = rows[matches.order[matches.candidates[taken]]], truth_rows[matched[taken]]
        kinds[finders] = np.where(truths.crowd[found], _NOT_COUNTED, _RIGHT)
        objects[finders] = np.where(truths.crowd[found], UNMATCHED, found)
    wrong = np.flatnonzero(kinds == len(DETECTION_KINDS))
    kinds[wrong], objects[wrong] = _kinds_of_wrong(scored, wrong)
    order = np.lexsort((detections.frames, -detections.scores))
    missed = ~truths.crowd
    missed[objects[objects != UNMATCHED]] = False
    return Verdicts(kinds, objects, missed, order)


def _kinds_of_wrong(scored: ScoredFrames, wrong: Ints) -> tuple[Ints, Ints]:
    """Return the kind of each wrong detection, and the object it is mended onto: two (W,)."""
    own_iou, other_iou = np.zeros(len(wrong)), np.zeros(len(wrong))
    own, other = np.full(len(wrong), UNMATCHED), np.full(len(wrong), UNMATCHED)
    encounters = Encounters(scored.truths, scored.detections.select(wrong), by_label=False)
    pairs = encounters.pairs()
    pairs = pairs.select(~scored.truths.crowd[pairs.rows])
    places, rows, ious = encounters.order[pairs.places], pairs.rows, pairs.ious
    is_own = scored.truths.labels[rows] == scored.detections.labels[wrong[places]]
    for chosen, best_iou, best in ((is_own, own_iou, own), (~is_own, other_iou, other)):
        keep = np.flatnonzero(chosen)[_best_rows(places[chosen], rows[chosen], ious[chosen])]
        best_iou[places[keep]], best[places[keep]] = ious[keep], rows[keep]
    tests = (
        (own_iou >= NEAR_IOU) & (own_iou < FOUND_IOU),
        other_iou >= FOUND_IOU,
        own_iou >= FOUND_IOU,
        np.maximum(own_iou, other_iou) < NEAR_IOU,
    )
    kinds = np.select(tests, range(4), default=DETECTION_KINDS.index("both"))
    return kinds, np.select(tests[:2], (own, other), default=UNMATCHED)


def _best_rows(places: Ints, rows: Ints, ious: Floats) -> Ints:
    """Return which pair is the best of each place, the first ground truth where several are equal."""
    by_overlap = np.lexsort((rows, -ious, places))
    return by_overlap[np.flatnonzero(np.diff(places[by_overlap], prepend=-1))]


def _mended(scored: ScoredFrames, verdicts: Verdicts, kind: str, num_objects: Ints) -> float:
    """Return AP50 with all errors of one kind mended."""
    right, wrong, labels = verdicts.right, verdicts.wrong, scored.detections.labels
    if kind == "missed":
        num_objects = num_objects - _count_objects(scored, verdicts.missed)
    else:
        of_kind = verdicts.kinds == DETECTION_KINDS.index(kind)
        mended = _mended_rightly(verdicts, of_kind)
        labels = labels.copy()
        labels[mended] = scored.truths.labels[verdicts.objects[mended]]
        right = right.copy()
        right[mended] = True
        wrong = wrong & ~of_kind
    return _mean_ap(scored, verdicts, labels, right, wrong, num_objects) or 0.0


def _mended_rightly(verdicts: Verdicts, of_kind: Flags) -> Ints:
    """Return the rows that become right: of each free object the best-scoring one that is mended onto it."""
    is_found = np.zeros(len(verdicts.missed), bool)
    is_found[verdicts.objects[verdicts.right]] = True
    rows = verdicts.order[of_kind[verdicts.order]]
    rows = rows[verdicts.objects[rows] != UNMATCHED]
    rows = rows[~is_found[verdicts.objects[rows]]]
    _, first = np.unique(verdicts.objects[rows], return_index=True)
    best: Ints = rows[first]
    return best


def _count_objects(scored: ScoredFrames, counted: Flags) -> Ints:
    """Return how many of the chosen ground truths each label has: (L + 1,), the first for no label."""
    return np.bincount(scored.truths.labels[counted], minlength=len(scored.label_names) + 1)


def _mean_ap(
    scored: ScoredFrames, verdicts: Verdicts, labels: Ints, right: Flags, wrong: Flags, num_objects: Ints
) -> float | None:
    """Return AP50, the mean over labels that have ground truth; None without any.

    A label keeps its place in the mean, with AP 0, when all of its objects are taken away as missed.
    """
    has_objects = _count_objects(scored, ~scored.truths.crowd) > 0
    counted = verdicts.order[(right | wrong)[verdicts.order]]
    values = [
        _average_precision(right[counted[labels[counted] == label]], int(num_objects[label]))
        for label in np.flatnonzero(has_objects).tolist()
    ]
    return float(np.mean(values)) if values else None


def _average_precision(right: Flags, num_objects: int) -> float:
    """Return the mean, over 101 recalls, of the best precision from there on; `right` in score order."""
    if num_objects == 0:
        return 0.0
    found = np.cumsum(right)
    precision = found / (np.arange(1, len(right) + 1) + np.spacing(1.0))
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(found / num_objects, _RECALL_POINTS, side="left")
    return float(np.append(best, 0.0)[places].mean())
