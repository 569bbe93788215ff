"""Named evaluation protocols: which matches count and what is averaged. Every figure carries its protocol.

| preset  | a detection takes                 | average precision                | source                 |
|---------|-----------------------------------|----------------------------------|------------------------|
| `coco`  | the best ground truth still free  | 101 points, IoU 0.50:0.05:0.95   | pycocotools, to 1e-9   |
| `voc07` | the best ground truth, or none    | 11 points, IoU 0.5               | PASCAL VOC 2007 devkit |

IoU is plain (continuous boxes, no +1) in both. Labels without ground truth take no part in a mean.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lstfe.data.coco_video import VideoAnnotations
from lstfe.errors import UserError
from lstfe.evaluation.matching import Flags, Floats, GroundTruths, MatchRule, ScoredBoxes, match
from lstfe.evaluation.precision import PrecisionRecall, precision_and_recall
from lstfe.evaluation.records import DetectionRecord, ScoredFrames, scored_frames

_UNLIMITED = 1e10  # square pixels; pycocotools' number for "any size"
ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One number of a protocol: mean average precision, or mean recall, over labels and IoU thresholds."""

    kind: Literal["precision", "recall"] = "precision"
    iou: float | None = None
    """The one threshold it looks at; None = the mean over all."""
    size: str = ALL
    limit: int | None = None
    """Detections used per frame and label; None = as many as the protocol allows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How detections are matched, and the figures that come of it."""

    rule: MatchRule
    recall_points: tuple[float, ...]
    figures: Mapping[str, Figure]
    class_figures: tuple[str, ...]
    """Names of the figures that the table per class shows."""
    size_bins: Mapping[str, tuple[float, float]] = field(default_factory=lambda: {ALL: (0.0, _UNLIMITED)})
    """Name -> smallest and largest area, square original pixels, both included."""

    @property
    def limits(self) -> tuple[int | None, ...]:
        """Every limit of detections that some figure needs."""
        return tuple(dict.fromkeys(figure.limit for figure in self.figures.values()))


COCO = Protocol(
    rule=MatchRule(
        thresholds=tuple(np.linspace(0.5, 0.95, 10).tolist()),
        best_only=False,
        crowd_by_detection=True,
        max_detections=100,
    ),
    recall_points=tuple(np.linspace(0.0, 1.0, 101).tolist()),
    size_bins={
        ALL: (0.0, _UNLIMITED),
        "small": (0.0, 32.0**2),
        "medium": (32.0**2, 96.0**2),
        "large": (96.0**2, _UNLIMITED),
        "tiny": (0.0, math.nextafter(16.0**2, 0.0)),
        "small16_32": (16.0**2, 32.0**2),
    },
    figures={
        "AP": Figure(),
        "AP50": Figure(iou=0.5),
        "AP75": Figure(iou=0.75),
        "APs": Figure(size="small"),
        "APm": Figure(size="medium"),
        "APl": Figure(size="large"),
        "AP_tiny": Figure(size="tiny"),
        "AP_small16_32": Figure(size="small16_32"),
        "AR1": Figure(kind="recall", limit=1),
        "AR10": Figure(kind="recall", limit=10),
        "AR100": Figure(kind="recall"),
        "ARs": Figure(kind="recall", size="small"),
        "ARm": Figure(kind="recall", size="medium"),
        "ARl": Figure(kind="recall", size="large"),
    },
    class_figures=("AP", "AP50", "AP75"),
)

VOC07 = Protocol(
    rule=MatchRule(thresholds=(0.5,), best_only=True, crowd_by_detection=False, max_detections=None),
    # arange, not k / 10: 3 * 0.1 is a little more than 0.3, and the tools in use all compare with that.
    recall_points=tuple(np.arange(0.0, 1.1, 0.1).tolist()),
    figures={"AP50": Figure(iou=0.5)},
    class_figures=("AP50",),
)

PROTOCOLS: dict[str, Protocol] = {"coco": COCO, "voc07": VOC07}


def score(
    annotations: VideoAnnotations,
    records: Sequence[DetectionRecord],
    protocols: Iterable[str],
    *,
    frame_stride: int = 1,
    split: str | None = None,
    frames: Mapping[str, Collection[int]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Score detections by named protocols: protocol -> figure -> number, None where there is no ground truth.

    Beside the figures stand split, frame_stride, num_frames, num_ground_truths (no crowds), num_detections,
    and `per_class` where there is more than one class. `frames` (frame_ids by video) limits what is scored.
    DetectionError names a record that is impossible; UserError an unknown protocol.
    """
    scored = scored_frames(annotations, records, frame_stride=frame_stride, frames=frames)
    counts = {
        "split": split,
        "frame_stride": frame_stride,
        "num_frames": len(scored.frames),
        "num_ground_truths": int((~scored.truths.crowd).sum()),
        "num_detections": len(scored.detections),
    }
    return {name: _figures(find_protocol(name), scored) | counts for name in protocols}


def flatten_scores(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers alone under dotted names, for trackers: {"coco.AP50": 0.83, ...}; no None."""
    flat: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            flat |= flatten_scores(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)):
            flat[prefix + name] = float(value)
    return flat


def find_protocol(name: str) -> Protocol:
    """Return the protocol of that name; UserError lists the names there are."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown evaluation protocol {name!r}, expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def precision_recall_by_label(protocol: Protocol, scored: ScoredFrames) -> list[PrecisionRecall]:
    """Match and accumulate each label for itself, in the order of `label_names`."""
    return [
        _precision_recall_of_label(protocol, scored.truths, scored.detections, label)
        for label in range(1, len(scored.label_names) + 1)
    ]


def ignored_ground_truths(truths: GroundTruths, size_bins: Iterable[tuple[float, float]]) -> Flags:
    """Return which ground truths each bin does not count: crowds, and areas outside of it: -> (B, G)."""
    return truths.crowd | _outside(truths.areas, size_bins)


def average_over_labels(
    curves: Sequence[PrecisionRecall], protocol: Protocol, figure: Figure
) -> float | None:
    """Return one figure, the mean over thresholds and over labels with ground truth; None without any."""
    size = list(protocol.size_bins).index(figure.size)
    levels = [i for i, level in enumerate(protocol.rule.thresholds) if figure.iou in (None, round(level, 9))]
    if figure.kind == "precision":
        values = [curve.precision[size, levels] for curve in curves]
    else:
        values = [curve.recall[size, levels, protocol.limits.index(figure.limit)] for curve in curves]
    present = [value.mean() for value in values if not np.isnan(value).any()]
    return float(np.mean(present)) if present else None


def _precision_recall_of_label(
    protocol: Protocol, truths: GroundTruths, detections: ScoredBoxes, label: int
) -> PrecisionRecall:
    truths = truths.select(np.flatnonzero(truths.labels == label))
    detections = detections.select(np.flatnonzero(detections.labels == label))
    bins = protocol.size_bins.values()
    ignored = ignored_ground_truths(truths, bins)
    return precision_and_recall(
        match(truths, detections, ignored, protocol.rule),
        ignored=ignored,
        outside=_outside(detections.boxes[:, 2] * detections.boxes[:, 3], bins),
        recall_points=np.array(protocol.recall_points),
        limits=protocol.limits,
    )


def _outside(areas: Floats, size_bins: Iterable[tuple[float, float]]) -> Flags:
    return np.stack([(areas < low) | (areas > high) for low, high in size_bins])


def _figures(protocol: Protocol, scored: ScoredFrames) -> dict[str, Any]:
    curves = precision_recall_by_label(protocol, scored)
    figures: dict[str, Any] = {
        name: average_over_labels(curves, protocol, figure) for name, figure in protocol.figures.items()
    }
    if len(curves) > 1:
        figures["per_class"] = {
            name: _class_figures(protocol, curve)
            for name, curve in zip(scored.label_names, curves, strict=True)
        }
    return figures


def _class_figures(protocol: Protocol, curve: PrecisionRecall) -> dict[str, float | int | None]:
    figures = {
        name: average_over_labels([curve], protocol, protocol.figures[name])
        for name in protocol.class_figures
    }
    return {**figures, "num_ground_truths": int(curve.num_ground_truths[0])}
