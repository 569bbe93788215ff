"""Random boxes and scores of several classes, and PyTorch's own answer to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor

from deploy.plugin.proposal_cases import THRESHOLDS
from deploy.suppression import suppress


@dataclass(frozen=True, slots=True)
class SuppressionCase:
    """The numbers of a suppression; boxes and scores follow from `seed`."""

    classes: int
    boxes: int
    """Of each class."""
    nms_iou: float
    score_threshold: float
    max_kept: int
    levels: int
    """How many different scores there are: few make many ties."""
    side: int
    """Of the image, in pixels; few make many overlaps."""
    seed: int


def make(case: SuppressionCase) -> tuple[Tensor, Tensor]:
    """Draw boxes (C, N, 4), some of them empty, and scores (C, N) from 0 to 1, some of them the threshold itself.

    Corners are whole pixels, so that overlaps of the threshold itself are met.
    """
    random = torch.Generator().manual_seed(case.seed)
    corners = torch.randint(case.side + 1, (2, case.classes, case.boxes, 2), generator=random)
    boxes = torch.cat((corners.amin(dim=0), corners.amax(dim=0)), dim=2).float()
    values = torch.rand(case.levels, generator=random)
    values[0] = case.score_threshold
    return boxes, values[torch.randint(case.levels, (case.classes, case.boxes), generator=random)]


def torchs_answer(case: SuppressionCase, boxes: Tensor, scores: Tensor) -> Tensor:
    """Return the marks (C, N) int32 that PyTorch's suppression gives."""
    marks: Tensor = suppress(boxes, scores, case.nms_iou, case.score_threshold, case.max_kept)
    return marks.int()


def random_case(random: Random, *, most_boxes: int = 700, **fixed: Any) -> SuppressionCase:
    """Draw any suppression; `fixed` sets numbers that are not to be drawn."""
    drawn = SuppressionCase(
        classes=random.randint(1, 5),
        boxes=min(most_boxes, random.choice([1, 7, 63, 64, 65, 200, 511, 513, 700])),
        nms_iou=random.choice(THRESHOLDS),
        score_threshold=random.choice([0.0, 0.001, 0.3, 0.9]),
        max_kept=random.choice([1, 5, 64, 70, 10_000]),
        levels=random.choice([1, 2, 50, 10**6]),
        side=random.choice([3, 30, 1000]),
        seed=random.randint(0, 2**31),
    )
    return replace(drawn, **fixed)


def frame_case(*, classes: int, boxes: int) -> SuppressionCase:
    """Return the suppression of one frame of a detector, with the head's usual numbers."""
    return SuppressionCase(
        classes=classes,
        boxes=boxes,
        nms_iou=0.5,
        score_threshold=0.001,
        max_kept=100,
        levels=10**6,
        side=600,
        seed=0,
    )
