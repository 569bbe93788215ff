"""What the gate decides on, measured: two detectors on the same videos, the export's parity, both latencies."""

from __future__ import annotations

import json
import math
from pathlib import Path

from lstfe.config import EvaluateConfig
from lstfe.data.prepared import load_split
from lstfe.errors import UserError
from lstfe.evaluation.bootstrap import paired_differences
from lstfe.evaluation.presets import ALL, find_protocol
from lstfe.evaluation.protocols import score_frames
from lstfe.evaluation.records import ScoredFrames, load_detections, scored_frames
from pipelines.gate import Paired


def load_scored(prepared: Path, detections: Path, wanted: EvaluateConfig) -> ScoredFrames:
    """Put detections beside the ground truth of a prepared split; UserError where they are of other frames."""
    annotations, _ = load_split(prepared, wanted.split)
    return scored_frames(annotations, load_detections(detections), frame_stride=wanted.frame_stride)


def single_figure(scored: ScoredFrames, protocol: str) -> Paired:
    """Return AP50 of a challenger that has no champion to be compared with."""
    return Paired(challenger=score_frames(scored, [protocol])[protocol]["AP50"], champion=None)


def paired_figures(
    challenger: ScoredFrames, champion: ScoredFrames, protocol_name: str, *, resamples: int, seed: int
) -> tuple[Paired, dict[str, Paired], dict[str, Paired]]:
    """Return AP50 with its interval, AP50 by class, and average precision by size bin, of both detectors."""
    protocol = find_protocol(protocol_name)
    apart = paired_differences(protocol, challenger, champion, resamples=resamples, seed=seed)["AP50"]
    ours, theirs = (score_frames(scored, [protocol_name])[protocol_name] for scored in (challenger, champion))
    sizes = [
        name
        for name, figure in protocol.figures.items()
        if figure.kind == "precision" and figure.bin in protocol.size_bins and figure.bin != ALL
    ]
    # With one class the protocol has no table by class: that class is the whole.
    names = challenger.label_names
    one_class = {names[0]: (ours["AP50"], theirs["AP50"])} if len(names) == 1 else {}
    by_class = one_class or {
        name: (ours["per_class"][name]["AP50"], theirs["per_class"][name]["AP50"]) for name in names
    }
    return (
        Paired(challenger=ours["AP50"], champion=theirs["AP50"], interval=apart.interval),
        {name: Paired(challenger=pair[0], champion=pair[1]) for name, pair in by_class.items()},
        {name: Paired(challenger=ours[name], champion=theirs[name]) for name in sizes},
    )


def parity_difference(path: Path) -> float:
    """Return the largest relative difference of any graph that parity.json tells of; UserError where it is none.

    One that is no finite number counts as infinite.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        found = [
            float(difference["relative"])
            for by_input in report["graphs"].values()
            for difference in by_input.values()
        ]
        return max(difference if math.isfinite(difference) else math.inf for difference in found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: no parity report that can be read ({type(error).__name__}), expected what the stage export "
            "writes; run `dvc repro export`"
        ) from None
