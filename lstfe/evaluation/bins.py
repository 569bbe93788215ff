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


def size_weights(areas: Floats, bins: Iterable[Bin]) -> list[Flags]:
    """Return which detections weigh 1 in each bin as false ones, as their own area lies in it: B times (D,)."""
    return [(low <= areas) & (areas <= high) for low, high in bins]


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
    starts = run_starts(pairs.places)
    meeting = pairs.places[starts]
    for place, inside in enumerate(counted):
        outside = everything & ~inside
        share = inside.sum() / max(everything.sum(), 1)
        weights[place] = _by_frame(encounters, inside, outside, share) if by_frame else share
        if len(pairs):
            near, far = (
                np.maximum.reduceat(np.where(side[pairs.rows], pairs.ious, 0.0), starts)
                for side in (inside, outside)
            )
            decided = near != far
            weights[place, meeting[decided]] = (near > far)[decided]
    return weights


def _by_frame(encounters: Encounters, inside: Flags, outside: Flags, share: float) -> Floats:
    """Return what detections weigh that overlap no object more than others, by the objects of their cell: (D,)."""
    num_inside, num_outside = encounters.cell_sums(inside), encounters.cell_sums(outside)
    both = (num_inside > 0) & (num_outside > 0)
    weights = np.where(num_inside + num_outside > 0, (num_inside > 0).astype(np.float64), share)
    weights[both] = num_outside[both] / (num_inside + num_outside)[both]
    return encounters.spread(weights)
