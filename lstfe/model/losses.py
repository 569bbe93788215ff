"""Matching boxes with ground truth, sampling them, and the losses of both detector stages.

Shapes: N boxes (anchors or proposals) of one frame, G ground-truth boxes, R crowds.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lstfe import boxes as box_geometry
from lstfe.transfer import to_device
from lstfe.types import Targets

# Special matches, beside the index of a ground truth.
BACKGROUND = -1
IGNORED = -2
_CROWD_SHARE = 0.5
"""A box of which more than this share lies in a crowd is no background."""


def match(
    boxes: Tensor, targets: Targets, *, positive_iou: float, negative_iou: float, keep_best: bool
) -> Tensor:
    """Return for each box the ground truth it stands for, BACKGROUND or IGNORED: (N, 4) -> (N,) int64.

    `keep_best` also gives every ground truth its best box, however low the overlap (Faster R-CNN 3.1.2). Boxes that lie
    mostly in a crowd are no background: whether there is an object in them, nobody knows.
    """
    matches = _match_ground_truth(boxes, targets.boxes, positive_iou, negative_iou, keep_best=keep_best)
    if targets.crowds is not None:
        # Deviation: the paper's data sets have no crowds. The share is of the box, as such regions may be large.
        in_crowd = (box_geometry.covered_share(boxes, targets.crowds) > _CROWD_SHARE).any(dim=1)
        matches[in_crowd & (matches == BACKGROUND)] = IGNORED
    return matches


def _match_ground_truth(
    boxes: Tensor, ground_truth: Tensor, positive_iou: float, negative_iou: float, *, keep_best: bool
) -> Tensor:
    if len(ground_truth) == 0:
        return torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    overlap = box_geometry.iou(boxes, ground_truth)  # (N, G)
    best_iou, matches = overlap.max(dim=1)
    matches[best_iou < positive_iou] = IGNORED
    matches[best_iou < negative_iou] = BACKGROUND
    if keep_best:
        best_per_truth = overlap.max(dim=0).values  # (G,)
        # A ground truth that nothing overlaps has no best box.
        is_best = (overlap == best_per_truth) & (best_per_truth > 0)
        box_index, truth_index = is_best.nonzero(as_tuple=True)
        matches[box_index] = truth_index
    return matches


def sample(
    matches: Tensor, *, number: int, positive_fraction: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw positives and negatives at random: (N,) -> indices of both, together at most `number`."""
    positive = (matches >= 0).nonzero().flatten()
    negative = (matches == BACKGROUND).nonzero().flatten()
    num_positive = min(len(positive), int(number * positive_fraction))
    num_negative = min(len(negative), number - num_positive)
    return _draw(positive, num_positive, generator), _draw(negative, num_negative, generator)


def _draw(indices: Tensor, number: int, generator: torch.Generator | None) -> Tensor:
    # On the CPU whatever the device, so that the same seed draws the same boxes everywhere.
    order = torch.randperm(len(indices), generator=generator)[:number]
    return indices[to_device(order, indices.device)]


def objectness_loss(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over the sampled anchors: logits (N,) and two index sets -> scalar."""
    sampled = torch.cat((positive, negative))
    truth = torch.zeros_like(sampled, dtype=logits.dtype)
    truth[: len(positive)] = 1.0
    return _mean(F.binary_cross_entropy_with_logits(logits[sampled], truth, reduction="none"))


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over proposals: (N, K), (N,) -> scalar, 0 for none."""
    return _mean(F.cross_entropy(logits, labels, reduction="none"))


def regression_loss(predicted: Tensor, truth: Tensor, *, num_sampled: int, beta: float) -> Tensor:
    """Return smooth L1 summed over the positives, per sampled box: (P, 4), (P, 4) -> scalar."""
    return F.smooth_l1_loss(predicted, truth, beta=beta, reduction="sum") / max(num_sampled, 1)


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(values.numel(), 1)
