"""Bins of size and of motion: which ground truths they count, and whose fault a false detection is.

Shapes: as in matching.py. A bin is given by its lowest and highest value, both included.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lstfe.evaluation.encounters import Encounters, Flags, Floats, GroundTruths, Pairs, run_starts

Bin = tuple[float, float]


def counted_by_size(truths: GroundTruths, bins: Iterable[Bin]) -> Flags:
    """Return which ground truths each bin of areas counts: (B, G); crowds never."""
    return np.stack([~truths.crowd & (low <= truths.areas) & (truths.areas <= high) for low, high in bins])


def counted_by_motion(truths: GroundTruths, bins: Iterable[Bin]) -> Flags:
    """Return which ground truths each bin of motion IoU counts: (B, G); those of unknown motion never."""
    bins = list(bins)
    counted = np.zeros((len(bins), len(truths)), bool)
    if truths.motion is not None:
        for place, (low, high) in enumerate(bins):
            counted[place] = ~truths.crowd & (low <= truths.motion) & (truths.motion <= high)
    return counted


def size_weights(areas: Floats, bins: Iterable[Bin]) -> Floats:
    """Return 1 for detections whose own area lies in the bin, else 0: (D,) -> (B, D)."""
    return np.stack([(low <= areas) & (areas <= high) for low, high in bins]).astype(np.float64)


def motion_weights(encounters: Encounters, pairs: Pairs, counted: Flags, *, by_frame: bool) -> Floats:
    """Return how much each detection weighs in each bin of motion as a false one: (B, G) -> (B, D), in score order.

    A detection has no motion of its own. It has that of the object of its label and frame that it overlaps most:
    1 where the bin counts that object, else 0. One that overlaps no object weighs the bin's share of all ground
    truths. With `by_frame` it does so only where its frame has no object of its label; otherwise it weighs 1 or 0
    where all those are inside or outside of the bin, and the share that is *outside* where there are both
    (as in MEGA's evaluation, which has it from FGFA's).
    """
    everything = ~encounters.truths.crowd
    weights = np.empty((len(counted), len(encounters.order)))
    for place, inside in enumerate(counted):
        outside = everything & ~inside
        near, far = _best(pairs, inside, len(encounters.order)), _best(pairs, outside, len(encounters.order))
        stray = np.full(len(near), inside.sum() / max(everything.sum(), 1))
        if by_frame:
            num_inside, num_outside = encounters.sums(inside), encounters.sums(outside)
            near[num_inside == 0], far[num_outside == 0] = -1.0, -1.0
            both = (num_inside > 0) & (num_outside > 0)
            stray[both] = (num_outside / np.maximum(num_inside + num_outside, 1))[both]
        weights[place] = np.where(near > far, 1.0, np.where(far > near, 0.0, stray))
    return weights


def _best(pairs: Pairs, chosen: Flags, num_detections: int) -> Floats:
    """Return each detection's highest IoU with the chosen ground truths, 0 without any: (D,)."""
    best = np.zeros(num_detections)
    if len(pairs):
        starts = run_starts(pairs.places)
        ious = np.where(chosen[pairs.rows], pairs.ious, 0.0)
        best[pairs.places[starts]] = np.maximum.reduceat(ious, starts)
    return best
