"""One greedy matcher of detections with ground truths, for every protocol: NumPy, no loop over detections.

Shapes: G ground truths and D detections over all frames, B bins (of size or motion), T IoU thresholds, P pairs,
C candidates: detections that are matched at some threshold or may be in some bin. All others are unmatched whatever
the bin and the threshold: nothing of shape (B, T, D) is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lstfe.evaluation.encounters import (
    Encounters,
    Flags,
    Floats,
    GroundTruths,
    Ints,
    Pairs,
    ScoredBoxes,
    run_starts,
    stable_argsort,
)

UNMATCHED = -1
# pycocotools accepts 1 - 1e-10 where 1 is asked for, because a box's IoU with itself may round below 1.
_STRICTEST = 1.0 - 1e-10

Rows = npt.NDArray[np.int32]


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
    counted_first: bool = True
    """True (COCO): a ground truth that the bin counts is preferred to those it does not, whatever the overlap,
    and of equals the last is taken. False (ImageNet-VID): the overlap decides; of equals the first one that
    counts is taken, else the last one that does not; crowds come last, whatever the overlap."""
    grow_px: float = 0.0
    """Added to x2 - x1 and y2 - y1 before the overlap is taken; 1 px less where the data has added one already
    (`GroundTruths.corner_pixels_inside`)."""
    tolerance_px: float | None = None
    """A ground truth of w x h pixels asks for w*h / ((w + t) * (h + t)) where that is less than the threshold."""


@dataclass(frozen=True)
class Matches:
    """Result of `match`: detections in score order, and what the candidates among them are matched to."""

    order: Ints
    """(D',) rows of the used detections, score descending; ties by frame, then by row."""
    rank: Ints
    """(D',) place of each within its frame, 0 = best."""
    candidates: Ints
    """(C,) places in `order`, ascending."""
    common: Rows
    """(T, C) row of the matched ground truth, or UNMATCHED: of candidates that match alike in every bin."""
    rivals: Ints
    """(V,) the other candidates, ascending: they or others of their frame had a choice."""
    by_bin: Rows
    """(B, T, V) what those are matched to."""

    @cached_property
    def ground_truths(self) -> Rows:
        """(B, T, C) row of the matched ground truth, or UNMATCHED."""
        matched = np.empty((len(self.by_bin), *self.common.shape), np.int32)
        matched[:] = self.common
        matched[:, :, self.rivals] = self.by_bin
        return matched

    def matched_to(self, place: int, level: int) -> Rows:
        """Return `ground_truths[place, level]`: (C,)."""
        if not len(self.rivals):
            return np.asarray(self.common[level])
        matched: Rows = self.common[level].copy()
        matched[self.rivals] = self.by_bin[place, level]
        return matched

    def part(self, start: int, end: int) -> Matches:
        """Return the matches of a stretch of `order`."""
        first, last = np.searchsorted(self.candidates, (start, end)).tolist()
        begin, stop = np.searchsorted(self.rivals, (first, last)).tolist()
        return Matches(
            self.order[start:end],
            self.rank[start:end],
            self.candidates[first:last] - start,
            self.common[:, first:last],
            self.rivals[begin:stop] - first,
            self.by_bin[:, :, begin:stop],
        )


def match(truths: GroundTruths, detections: ScoredBoxes, ignored: Flags, rule: MatchRule) -> Matches:
    """Match the detections of one label greedily, best score first; labels are not looked at.

    `ignored` (B, G) marks the ground truths that a bin does not count.
    """
    return match_encounters(Encounters(truths, detections, by_label=False), ignored, rule)


def match_encounters(encounters: Encounters, ignored: Flags, rule: MatchRule) -> Matches:
    """Match as `match` does, label by label where the encounters keep labels apart; `order` goes by label then."""
    encounters = encounters.limited(rule.max_detections)
    pairs = encounters.pairs(grow_px=rule.grow_px, crowd_by_detection=rule.crowd_by_detection)
    needed = _needed(encounters.truths, rule)
    pairs = pairs.select(pairs.ious >= needed.min(axis=0)[pairs.rows])
    if rule.best_only:
        pairs = _first_best(pairs)
    is_candidate = np.zeros(len(encounters.order), bool)
    is_candidate[pairs.places] = True
    candidates = np.flatnonzero(is_candidate)
    crowd, ranks = encounters.truths.crowd, encounters.rank[candidates]
    contested, divided = _contested(pairs, encounters.truth_cells, ignored, rule)
    numbered = Pairs((np.cumsum(is_candidate) - 1)[pairs.places], pairs.rows, pairs.ious)
    common = _take_first(numbered.select(~contested), needed, crowd, len(candidates))
    # Where all bins see the choices alike, what the first does is what all do.
    agreeing, taken = _take_turns(
        numbered.select(contested & ~divided), ranks, needed, crowd, ignored[:1], rule
    )
    common[:, agreeing] = taken[0]
    rivals, by_bin = _take_turns(numbered.select(divided), ranks, needed, crowd, ignored, rule)
    taking = (common != UNMATCHED).any(axis=0)
    taking[rivals] = True
    rivals = (np.cumsum(taking) - 1)[rivals]
    return Matches(encounters.order, encounters.rank, candidates[taking], common[:, taking], rivals, by_bin)


def _needed(truths: GroundTruths, rule: MatchRule) -> Floats:
    """Return the IoU that each ground truth asks for: (T, G)."""
    needed: Floats = np.minimum(np.array(rule.thresholds), _STRICTEST)[:, None]
    if rule.tolerance_px is None:
        return np.broadcast_to(needed, (len(needed), len(truths)))
    sizes = truths.boxes[:, 2:]
    tolerant: Floats = sizes.prod(axis=1) / (sizes + rule.tolerance_px).prod(axis=1)
    return np.asarray(np.minimum(needed, tolerant))


def _first_best(pairs: Pairs) -> Pairs:
    """Keep each detection's pair with the highest IoU, the first ground truth where several are equal."""
    starts = run_starts(pairs.places)
    if len(starts) == len(pairs):
        return pairs
    numbers = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(pairs)))
    by_overlap = np.lexsort((pairs.rows, -pairs.ious, numbers))
    return pairs.select(by_overlap[starts])


def _contested(pairs: Pairs, truth_cells: Ints, ignored: Flags, rule: MatchRule) -> tuple[Flags, Flags]:
    """Return which pairs lie in a cell where some detection has a choice, and in which of these bins disagree.

    They do where some bin counts one ground truth of the cell and not another; where the overlap decides, bins that
    count none break ties in their own way, so there all are taken to disagree. Two (P,).
    """
    starts = run_starts(truth_cells[pairs.rows])
    lengths = np.diff(starts, append=len(pairs))
    has_choice = np.zeros(len(pairs), bool)
    has_choice[1:] = pairs.places[1:] == pairs.places[:-1]
    if not has_choice.any():
        return has_choice, has_choice
    contested = np.repeat(np.logical_or.reduceat(has_choice, starts), lengths)
    if not rule.counted_first:
        return contested, contested
    firsts = np.repeat(pairs.rows[starts], lengths)
    differs = np.zeros(len(pairs), bool)
    differs[contested] = (ignored[:, pairs.rows[contested]] != ignored[:, firsts[contested]]).any(axis=0)
    return contested, contested & np.repeat(np.logical_or.reduceat(differs, starts), lengths)


def _take_first(pairs: Pairs, needed: Floats, crowd: Flags, num_candidates: int) -> Rows:
    """Give each ground truth to the first that overlaps it enough, a crowd to all: -> (T, C).

    Where no detection has a choice this is the greedy rule, whatever the bin.
    """
    matched = np.full((len(needed), num_candidates), UNMATCHED, np.int32)
    pairs = pairs.select(stable_argsort(pairs.rows))  # detections of one ground truth stay in score order
    for level, lowest in enumerate(needed):
        enough = np.flatnonzero(pairs.ious >= lowest[pairs.rows])
        rows = pairs.rows[enough]
        first = crowd[rows]
        first[run_starts(rows)] = True
        matched[level, pairs.places[enough[first]]] = rows[first]
    return matched


def _take_turns(
    pairs: Pairs, ranks: Ints, needed: Floats, crowd: Flags, ignored: Flags, rule: MatchRule
) -> tuple[Ints, Rows]:
    """Let candidates choose in turns, one of each cell at a time, best score first.

    `pairs.places` number all candidates, `ranks` (C,) are their places in their cells. Returns those that the pairs
    name, ascending, (V,), and what each takes, (B, T, V).
    """
    rivals, takers_of_pairs = np.unique(pairs.places, return_inverse=True)
    matched = np.full((len(ignored), len(needed), len(rivals)), UNMATCHED, np.int32)
    free = np.ones((*matched.shape[:2], len(crowd)), bool)
    ranking, preferences = _preferences(pairs, ignored, crowd, rule)
    for chosen in _by_turn(ranks[pairs.places]):
        wanted, takers = pairs.rows[chosen], takers_of_pairs[chosen]
        starts = run_starts(takers)
        allowed = free[:, :, wanted] & (pairs.ious[chosen] >= needed[:, wanted])  # (B, T, P of this turn)
        offers = np.where(allowed, preferences[:, None, chosen], 0)
        best = np.maximum.reduceat(offers, starts, axis=2)  # one per candidate
        bins, levels, places = np.nonzero(best)
        taken = pairs.rows[ranking[bins, best[bins, levels, places] - 1]]
        matched[bins, levels, takers[starts][places]] = taken
        free[bins, levels, taken] = crowd[taken]
    return rivals, matched


def _by_turn(turns: Ints) -> Iterator[Ints]:
    """Yield the pairs of each turn, in their order."""
    by_turn = stable_argsort(turns)
    edges = np.append(run_starts(turns[by_turn]), len(turns))
    for start, end in pairwise(edges.tolist()):
        yield by_turn[start:end]


def _preferences(pairs: Pairs, ignored: Flags, crowd: Flags, rule: MatchRule) -> tuple[Ints, Ints]:
    """Return the pairs of each bin, worst first, and the place of each there from 1: two (B, P)."""
    ranking = np.empty((len(ignored), len(pairs)), np.int64)
    ranks = np.empty_like(ranking)
    for place, of_bin in enumerate(ignored):
        counts = ~of_bin[pairs.rows]
        keys: tuple[Ints | Floats | Flags, ...]
        if rule.counted_first:
            keys = (pairs.rows, pairs.ious, counts)
        else:
            keys = (np.where(counts, -pairs.rows, pairs.rows), counts, pairs.ious, ~crowd[pairs.rows])
        ranking[place] = np.lexsort(keys)
        ranks[place, ranking[place]] = np.arange(1, len(pairs) + 1)
    return ranking, ranks
