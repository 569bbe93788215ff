"""The evaluation protocols there are: which matches count and what is averaged. Every figure carries its protocol.

| preset            | a detection takes                 | IoU and its threshold      | average precision | source      |
|-------------------|-----------------------------------|----------------------------|-------------------|-------------|
| `coco`            | the best ground truth still free  | plain, 0.50:0.05:0.95      | 101 points        | pycocotools |
| `voc07`           | the best ground truth, or none    | plain, 0.5                 | 11 points         | VOC devkit  |
| `voc07_inclusive` | the best ground truth, or none    | of x2 - x1 + 1 px, 0.5     | 11 points         | VOC devkit  |
| `mega_vid`        | the best ground truth still free  | of x2 - x1 + 2 px, 0.5     | area under curve  | MEGA        |
| `ilsvrc`          | the best one free and near enough | plain, 0.5 or 10 px around | area under curve  | ILSVRC VID  |

Plain means boxes as they are imported, no +1. Where the import has added 1 px (`corner_pixels_inside`), larger boxes
grow by 1 px less. Labels without ground truth take no part in a mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lstfe.errors import UserError
from lstfe.evaluation.bins import Bin
from lstfe.evaluation.matching import MatchRule
from lstfe.evaluation.precision import SPACING

_UNLIMITED = 1e10  # square pixels; pycocotools' number for "any size"
ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One number of a protocol: mean average precision, or mean recall, over labels and IoU thresholds."""

    kind: Literal["precision", "recall"] = "precision"
    iou: float | None = None
    """The one threshold it looks at; None = the mean over all."""
    bin: str = ALL
    """Name of a bin of size or motion."""
    limit: int | None = None
    """Detections used per frame and label; None = as many as the protocol allows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How detections are matched, and the figures that come of it."""

    rule: MatchRule
    recall_points: tuple[float, ...]
    """Where the curve is drawn, and averaged unless `is_area`."""
    is_area: bool = False
    """Average precision is the area under the whole curve, not the mean over the recall points."""
    figures: Mapping[str, Figure]
    class_figures: tuple[str, ...]
    """Names of the figures that the table per class shows."""
    size_bins: Mapping[str, Bin] = field(default_factory=lambda: {ALL: (0.0, _UNLIMITED)})
    """Name -> smallest and largest area, square original pixels, both included; the first counts everything."""
    motion_bins: Mapping[str, Bin] = field(default_factory=dict)
    """Name -> lowest and highest motion IoU, both included."""
    strays_by_frame: bool = False
    """How false detections that overlap nothing are shared out: see `bins.motion_weights`."""
    precision_epsilon: float = SPACING
    """What the protocol's tool adds to the denominator of a precision."""
    recall_epsilon: float = 0.0

    @property
    def bins(self) -> tuple[str, ...]:
        """Names of all bins, in the order of the first axis of everything that has one."""
        return (*self.size_bins, *self.motion_bins)

    @property
    def limits(self) -> tuple[int | None, ...]:
        """Every limit of detections that some figure needs."""
        return tuple(dict.fromkeys(figure.limit for figure in self.figures.values()))


MOTION_BINS: dict[str, Bin] = {
    "motion_slow": (0.9, 1.0),
    "motion_medium": (0.7, 0.9),
    "motion_fast": (0.0, 0.7),
}
"""As in FGFA and MEGA: both ends included, so exactly 0.7 and 0.9 belong to two."""
_CURVE = tuple(np.linspace(0.0, 1.0, 101).tolist())

COCO = Protocol(
    rule=MatchRule(
        thresholds=tuple(np.linspace(0.5, 0.95, 10).tolist()),
        best_only=False,
        crowd_by_detection=True,
        max_detections=100,
    ),
    recall_points=_CURVE,
    size_bins={
        ALL: (0.0, _UNLIMITED),
        "small": (0.0, 32.0**2),
        "medium": (32.0**2, 96.0**2),
        "large": (96.0**2, _UNLIMITED),
        "tiny": (0.0, math.nextafter(16.0**2, 0.0)),
        "small16_32": (16.0**2, 32.0**2),
    },
    motion_bins=MOTION_BINS,
    figures={
        "AP": Figure(),
        "AP50": Figure(iou=0.5),
        "AP75": Figure(iou=0.75),
        "APs": Figure(bin="small"),
        "APm": Figure(bin="medium"),
        "APl": Figure(bin="large"),
        "AP_tiny": Figure(bin="tiny"),
        "AP_small16_32": Figure(bin="small16_32"),
        "AP_slow": Figure(bin="motion_slow"),
        "AP_medium": Figure(bin="motion_medium"),
        "AP_fast": Figure(bin="motion_fast"),
        "AR1": Figure(kind="recall", limit=1),
        "AR10": Figure(kind="recall", limit=10),
        "AR100": Figure(kind="recall"),
        "ARs": Figure(kind="recall", bin="small"),
        "ARm": Figure(kind="recall", bin="medium"),
        "ARl": Figure(kind="recall", bin="large"),
    },
    class_figures=("AP", "AP50", "AP75", "AR100"),
)

VOC07 = Protocol(
    rule=MatchRule(thresholds=(0.5,), best_only=True, crowd_by_detection=False, max_detections=None),
    # arange, not k / 10: 3 * 0.1 is a little more than 0.3, and the tools in use all compare with that.
    recall_points=tuple(np.arange(0.0, 1.1, 0.1).tolist()),
    figures={"AP50": Figure(iou=0.5)},
    class_figures=("AP50",),
)

# The devkit's +1 completes corners that belong to the box. On exclusive ones, which have their last pixel already, it
# makes boxes 1 px too large: as published figures do that run the devkit's code on such data.
VOC07_INCLUSIVE = replace(VOC07, rule=replace(VOC07.rule, grow_px=1.0))

MEGA_VID = Protocol(
    rule=MatchRule(
        thresholds=(0.5,),
        best_only=False,
        crowd_by_detection=True,
        max_detections=None,
        counted_first=False,
        grow_px=2.0,  # corners count as inside (+1), and MEGA adds one more to x2 and y2
    ),
    recall_points=_CURVE,
    is_area=True,
    motion_bins=MOTION_BINS,
    strays_by_frame=True,
    figures={
        "AP50": Figure(iou=0.5),
        "AP50_slow": Figure(iou=0.5, bin="motion_slow"),
        "AP50_medium": Figure(iou=0.5, bin="motion_medium"),
        "AP50_fast": Figure(iou=0.5, bin="motion_fast"),
    },
    class_figures=("AP50", "AP50_slow", "AP50_medium", "AP50_fast"),
)

ILSVRC = Protocol(
    rule=MatchRule(
        thresholds=(0.5,),
        best_only=False,
        crowd_by_detection=True,
        max_detections=None,
        counted_first=False,
        tolerance_px=10.0,
    ),
    recall_points=_CURVE,
    is_area=True,
    figures={"AP": Figure()},
    class_figures=("AP",),
    precision_epsilon=1e-8,
    recall_epsilon=1e-8,
)

PROTOCOLS: dict[str, Protocol] = {
    "coco": COCO,
    "voc07": VOC07,
    "voc07_inclusive": VOC07_INCLUSIVE,
    "mega_vid": MEGA_VID,
    "ilsvrc": ILSVRC,
}


def find_protocol(name: str) -> Protocol:
    """Return the protocol of that name; UserError lists the names there are."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown evaluation protocol {name!r}, expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
