"""Score detections by named protocols (presets.py): match once, accumulate per label, average into figures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lstfe.data.coco_video import VideoAnnotations
from lstfe.evaluation.bins import counted_by_motion, counted_by_size, motion_weights, size_weights
from lstfe.evaluation.encounters import Encounters, Flags, Floats, Ints
from lstfe.evaluation.matching import UNMATCHED, match_encounters
from lstfe.evaluation.operating import JudgedDetections, operating_figures
from lstfe.evaluation.precision import LabelMatches, PrecisionRecall, precision_and_recall
from lstfe.evaluation.presets import (
    ALL,
    Figure,
    Protocol,
    find_protocol,
)
from lstfe.evaluation.records import DetectionRecord, ScoredFrames, scored_frames


def score(
    annotations: VideoAnnotations,
    records: Sequence[DetectionRecord],
    protocols: Iterable[str],
    *,
    frame_stride: int = 1,
    split: str | None = None,
    frames: Mapping[str, Collection[int]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Score detections by named protocols: see `score_frames`.

    `frames` (frame_ids by video) limits what is scored. DetectionError names a record that is impossible;
    UserError an unknown protocol.
    """
    scored = scored_frames(annotations, records, frame_stride=frame_stride, frames=frames)
    return score_frames(scored, protocols, frame_stride=frame_stride, split=split)


def score_frames(
    scored: ScoredFrames, protocols: Iterable[str], *, frame_stride: int = 1, split: str | None = None
) -> dict[str, dict[str, Any]]:
    """Return protocol -> figure -> number, None where there is no ground truth.

    Beside a protocol's own figures stand those of operating.py, and what all of them rest on: split,
    frame_stride, num_frames, num_empty_frames, num_ground_truths (no crowds; also by bin), num_detections, and
    `per_class` where there is more than one class.
    """
    encounters = Encounters(scored.truths, scored.detections, by_label=True)
    counts = {
        "split": split,
        "frame_stride": frame_stride,
        "num_frames": len(scored.frames),
        "num_empty_frames": len(scored.frames) - int(np.count_nonzero(np.bincount(scored.truths.frames))),
        "num_ground_truths": int((~scored.truths.crowd).sum()),
        "num_detections": len(scored.detections),
    }
    return {name: _figures(find_protocol(name), scored, encounters) | counts for name in protocols}


def flatten_scores(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers alone under dotted names, for trackers: {"coco.AP50": 0.83, ...}; no None."""
    flat: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, Mapping):
            flat |= flatten_scores(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)):
            flat[prefix + name] = float(value)
    return flat


def precision_recall_by_label(protocol: Protocol, scored: ScoredFrames) -> list[PrecisionRecall]:
    """Match and accumulate each label for itself, in the order of `label_names`."""
    encounters = Encounters(scored.truths, scored.detections, by_label=True)
    return _accumulate(protocol, label_matches(protocol, encounters, len(scored.label_names)))


def label_matches(protocol: Protocol, encounters: Encounters, num_labels: int) -> list[LabelMatches]:
    """Match all labels by a protocol, and say what its bins (`protocol.bins`) count; one entry a label."""
    encounters = encounters.limited(protocol.rule.max_detections)
    truths, order = encounters.truths, encounters.order
    by_motion = counted_by_motion(truths, protocol.motion_bins.values())
    counted = np.concatenate([counted_by_size(truths, protocol.size_bins.values()), by_motion])
    matches = match_encounters(encounters, ~counted, protocol.rule)
    sizes = encounters.detections.boxes[:, 2:].prod(axis=1)[order]
    weights: list[Floats | Flags] = [*size_weights(sizes, protocol.size_bins.values())]
    if len(by_motion):
        rule = protocol.rule
        pairs = encounters.pairs(grow_px=rule.grow_px, crowd_by_detection=rule.crowd_by_detection)
        weights += [*motion_weights(encounters, pairs, by_motion, by_frame=protocol.strays_by_frame)]
    starts = np.searchsorted(encounters.detections.labels[order], np.arange(1, num_labels + 2))
    found = []
    for label, (start, end) in enumerate(pairwise(starts.tolist()), start=1):
        numbers = counted[:, truths.labels == label].sum(axis=1)
        of_label = [weight[start:end] for weight in weights]
        found.append(LabelMatches(matches.part(start, end), counted, numbers, of_label))
    return found


def average_over_labels(
    curves: Sequence[PrecisionRecall], protocol: Protocol, figure: Figure
) -> float | None:
    """Return one figure, the mean over thresholds and over labels with ground truth; None without any."""
    place = protocol.bins.index(figure.bin)
    levels = [i for i, level in enumerate(protocol.rule.thresholds) if figure.iou in (None, round(level, 9))]
    if figure.kind == "recall":
        values = [curve.recall[place, levels, protocol.limits.index(figure.limit)] for curve in curves]
    elif protocol.is_area:
        values = [curve.area[place, levels] for curve in curves]
    else:
        values = [curve.precision[place, levels] for curve in curves]
    present = [value.mean() for value in values if not np.isnan(value).any()]
    return float(np.mean(present)) if present else None


def _accumulate(protocol: Protocol, labels: Iterable[LabelMatches]) -> list[PrecisionRecall]:
    return [
        precision_and_recall(
            label,
            recall_points=np.array(protocol.recall_points),
            limits=protocol.limits,
            precision_epsilon=protocol.precision_epsilon,
            recall_epsilon=protocol.recall_epsilon,
        )
        for label in labels
    ]


def _figures(protocol: Protocol, scored: ScoredFrames, encounters: Encounters) -> dict[str, Any]:
    encounters = encounters.limited(protocol.rule.max_detections)
    labels = label_matches(protocol, encounters, len(scored.label_names))
    curves = _accumulate(protocol, labels)
    together, by_label = _operating_figures(scored, encounters, labels)
    numbers = np.sum([curve.num_ground_truths for curve in curves], axis=0)
    figures = {name: average_over_labels(curves, protocol, of) for name, of in protocol.figures.items()}
    found: dict[str, Any] = {**figures, **together, **_by_bin(protocol, numbers)}
    if len(curves) > 1:
        found["per_class"] = {
            name: _class_figures(protocol, curve) | operating | _by_bin(protocol, curve.num_ground_truths)
            for name, curve, operating in zip(scored.label_names, curves, by_label, strict=True)
        }
    return found


def _class_figures(protocol: Protocol, curve: PrecisionRecall) -> dict[str, Any]:
    figures = {
        name: average_over_labels([curve], protocol, protocol.figures[name])
        for name in protocol.class_figures
    }
    return {**figures, "num_ground_truths": int(curve.num_ground_truths[0])}


def _by_bin(protocol: Protocol, numbers: Ints) -> dict[str, dict[str, int]]:
    counts = dict(zip(protocol.bins, numbers.tolist(), strict=True))
    del counts[ALL]
    return {"num_ground_truths_by_bin": counts} if counts else {}


Operating = dict[str, float | None]


def _operating_figures(
    scored: ScoredFrames, encounters: Encounters, labels: Sequence[LabelMatches]
) -> tuple[Operating, list[Operating]]:
    """Return the operating figures of all labels together, and of each."""
    judged = [_judge(label) for label in labels]
    right, wrong = (np.concatenate(columns) for columns in zip(*judged, strict=True))
    numbers = [int(label.num_ground_truths[0]) for label in labels]
    ends = np.cumsum([0, *(len(of_label) for of_label, _ in judged)]).tolist()
    stretches: list[Ints | slice] = [slice(start, end) for start, end in pairwise(ends)]
    found = [
        operating_figures(
            JudgedDetections(encounters.scores[which], encounters.frames[which], right[which], wrong[which]),
            num_ground_truths=number,
            truth_frames=scored.truths.frames,
            num_frames=len(scored.frames),
        )
        for which, number in zip(
            [encounters.across_labels(), *stretches], [sum(numbers), *numbers], strict=True
        )
    ]
    return found[0], found[1:]


def _judge(label: LabelMatches) -> tuple[Flags, Flags]:
    """Return which of a label's detections are right and wrong at the lowest threshold."""
    matches = label.matches
    rows = matches.matched_to(0, 0)
    matched = rows != UNMATCHED
    right, wrong = np.zeros(len(matches.order), bool), np.ones(len(matches.order), bool)
    right[matches.candidates[matched]] = label.counted[0, rows[matched]]
    wrong[matches.candidates[matched]] = False
    return right, wrong
