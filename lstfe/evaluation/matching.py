"""One greedy matcher of detections with ground truths, for every protocol: NumPy, no loop over detections.

Shapes: G ground truths and D detections of one label over all frames, B bins (of size), T IoU thresholds,
P overlapping pairs, C candidates: detections that overlap some ground truth of their frame enough to be
matched at all. All others are unmatched whatever the bin and the threshold: nothing of shape (B, T, D) is
made. Boxes are xywh float64 pixels here, because the protocols define IoU and area on these four numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

UNMATCHED = -1
# pycocotools accepts 1 - 1e-10 where 1 is asked for, because a box's IoU with itself may round below 1.
_STRICTEST = 1.0 - 1e-10
_PAIRS_AT_ONCE = 2_000_000  # bounds the memory that crowded frames take


@dataclass(frozen=True, slots=True)
class GroundTruths:
    """Ground truths of many frames, one row each."""

    frames: Ints
    """(G,) place of the frame in the list of scored frames."""
    labels: Ints
    """(G,) >= 1."""
    boxes: Floats
    """(G, 4) xywh."""
    areas: Floats
    """(G,) square pixels, as annotated."""
    crowd: Flags
    """(G,) may be matched any number of times, and never counts."""

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, rows: Ints) -> GroundTruths:
        """Return some of the rows."""
        return GroundTruths(
            self.frames[rows], self.labels[rows], self.boxes[rows], self.areas[rows], self.crowd[rows]
        )


@dataclass(frozen=True, slots=True)
class ScoredBoxes:
    """Detections of many frames, one row each."""

    frames: Ints
    """(D,) place of the frame in the list of scored frames."""
    labels: Ints
    """(D,) >= 1."""
    boxes: Floats
    """(D, 4) xywh."""
    scores: Floats
    """(D,)."""

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, rows: Ints) -> ScoredBoxes:
        """Return some of the rows."""
        return ScoredBoxes(self.frames[rows], self.labels[rows], self.boxes[rows], self.scores[rows])


@dataclass(frozen=True, kw_only=True, slots=True)
class MatchRule:
    """What the protocols disagree about."""

    thresholds: tuple[float, ...]
    """Lowest IoU of a match, T of them."""
    best_only: bool
    """True (PASCAL VOC): a detection may take only the ground truth it overlaps most, and is wrong if that is
    taken. False (COCO): it takes the best one that is still free."""
    crowd_by_detection: bool
    """True (COCO): the overlap with a crowd is the share of the detection that lies inside it."""
    max_detections: int | None
    """Detections used per frame and label, best first; None = all."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Result of `match`: detections in score order, and what the candidates among them are matched to."""

    order: Ints
    """(D',) rows of the used detections, score descending; ties by frame, then by row."""
    rank: Ints
    """(D',) place of each within its frame, 0 = best."""
    candidates: Ints
    """(C,) places in `order`, ascending."""
    ground_truths: npt.NDArray[np.int32]
    """(B, T, C) row of the matched ground truth, or UNMATCHED."""


def match(truths: GroundTruths, detections: ScoredBoxes, ignored: Flags, rule: MatchRule) -> Matches:
    """Match the detections of one label greedily, best score first.

    `ignored` (B, G) marks the ground truths that a bin does not count; one that counts is preferred to them,
    whatever the overlap (COCO's rule).
    """
    order, rank = _score_order(detections, rule.max_detections)
    frames = detections.frames[order]
    places, rows, ious = _pairs(truths, frames, detections.boxes[order], rule)
    if rule.best_only:
        places, rows, ious = _first_best(places, rows, ious)
    candidates, candidate_of_pair = np.unique(places, return_inverse=True)
    turns = _places_in_runs(frames[candidates])
    matched = _assign(candidate_of_pair, rows, ious, turns, truths.crowd, ignored, np.array(rule.thresholds))
    return Matches(order, rank, candidates, matched)


def _score_order(detections: ScoredBoxes, max_detections: int | None) -> tuple[Ints, Ints]:
    order = np.lexsort((detections.frames, -detections.scores))
    rank = _places_in_runs(detections.frames[order])
    if max_detections is None:
        return order, rank
    used = rank < max_detections
    return order[used], rank[used]


def _places_in_runs(values: Ints) -> Ints:
    """Return how often each value occurred before: [5, 7, 5, 5] -> [0, 0, 1, 2]."""
    by_value = np.argsort(values, kind="stable")
    starts = _run_starts(values[by_value])
    places = np.empty(len(values), np.int64)
    places[by_value] = np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
    return places


def _run_starts(values: Ints) -> Ints:
    """Return where a new value begins in sorted values: [5, 5, 7] -> [0, 2]."""
    changes = np.ones(len(values), bool)
    changes[1:] = values[1:] != values[:-1]
    return np.flatnonzero(changes)


def _pairs(truths: GroundTruths, frames: Ints, boxes: Floats, rule: MatchRule) -> tuple[Ints, Ints, Floats]:
    """Return (place of the detection, row of the ground truth, IoU) of every pair that overlaps enough.

    Sorted by detection, then IoU, then ground truth: of equally good ones the last wins, as in pycocotools.
    """
    by_frame = np.argsort(truths.frames, kind="stable")
    first = np.searchsorted(truths.frames, frames, side="left", sorter=by_frame)
    counts = np.searchsorted(truths.frames, frames, side="right", sorter=by_frame) - first
    lowest = min(*rule.thresholds, _STRICTEST)
    parts: list[tuple[Ints, Ints, Floats]] = []
    for start, end in _chunks(counts):
        places = np.repeat(np.arange(start, end), counts[start:end])
        rows = by_frame[first[places] + _places_in_runs(places)]
        ious = _iou(boxes[places], truths.boxes[rows], truths.crowd[rows] & rule.crowd_by_detection)
        enough = ious >= lowest
        parts.append((places[enough], rows[enough], ious[enough]))
    places, rows, ious = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    by_overlap = np.lexsort((rows, ious, places))
    return places[by_overlap], rows[by_overlap], ious[by_overlap]


def _chunks(counts: Ints) -> Iterator[tuple[int, int]]:
    """Cut the detections into stretches of about `_PAIRS_AT_ONCE` pairs; an empty one if there are none."""
    total = np.cumsum(counts)
    start = 0
    while True:
        done = int(total[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(total, done + _PAIRS_AT_ONCE, side="right")))
        yield start, min(end, len(counts))
        start = end
        if start >= len(counts):
            return


def _iou(first: Floats, second: Floats, crowd: Flags) -> Floats:
    """Return the IoU of paired boxes, the share of the first where `crowd`: (P, 4), (P, 4), (P,) -> (P,)."""
    sides = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    sides = sides - np.maximum(first[:, :2], second[:, :2])
    touch = (sides > 0).all(axis=1)
    intersection = sides[:, 0] * sides[:, 1]
    area = first[:, 2] * first[:, 3]
    union = np.where(crowd, area, area + second[:, 2] * second[:, 3] - intersection)
    ious: Floats = np.divide(intersection, union, out=np.zeros_like(union), where=touch)
    return ious


def _first_best(places: Ints, rows: Ints, ious: Floats) -> tuple[Ints, Ints, Floats]:
    """Keep each detection's pair with the highest IoU, the first ground truth where several are equal."""
    by_overlap = np.lexsort((rows, -ious, places))
    kept = by_overlap[_run_starts(places[by_overlap])]
    return places[kept], rows[kept], ious[kept]


def _assign(
    candidate_of_pair: Ints,
    rows: Ints,
    ious: Floats,
    turns: Ints,
    crowd: Flags,
    ignored: Flags,
    thresholds: Floats,
) -> npt.NDArray[np.int32]:
    """Let the candidates choose in turns, one of each frame at a time, best score first: -> (B, T, C)."""
    shape = (len(ignored), len(thresholds))
    thresholds = np.minimum(thresholds, _STRICTEST)[:, None]
    matched = np.full((*shape, len(turns)), UNMATCHED, np.int32)
    free = np.ones((*shape, len(crowd)), bool)
    turn_of_pair = turns[candidate_of_pair]
    by_turn = np.argsort(turn_of_pair, kind="stable")  # pairs stay sorted by candidate, then IoU
    edges = np.searchsorted(turn_of_pair[by_turn], np.arange(turns.max(initial=-1) + 2))
    for start, end in pairwise(edges):
        pairs = by_turn[start:end]
        starts = _run_starts(candidate_of_pair[pairs])
        wanted = rows[pairs]
        allowed = free[:, :, wanted] & (ious[pairs] >= thresholds)  # (B, T, P)
        # The last allowed pair is the best; one that counts comes after all that are ignored.
        preference = np.arange(1, len(pairs) + 1) + len(pairs) * ~ignored[:, None, wanted]  # (B, 1, P)
        best = np.maximum.reduceat(np.where(allowed, preference, 0), starts, axis=2)  # one per candidate
        taken = np.where(best > 0, wanted[(best - 1) % len(pairs)], UNMATCHED)
        matched[:, :, candidate_of_pair[pairs[starts]]] = taken
        bins, levels, places = np.nonzero(best)
        taken_rows = taken[bins, levels, places]
        free[bins, levels, taken_rows] = crowd[taken_rows]
    return matched
