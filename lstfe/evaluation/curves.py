"""Precision-recall curves at IoU 0.5: CSV for `dvc plots`, and a picture of the same."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing

from lstfe.data.coco_video import VideoAnnotations
from lstfe.evaluation.encounters import Floats
from lstfe.evaluation.precision import PrecisionRecall
from lstfe.evaluation.presets import ALL, Figure, Protocol, find_protocol
from lstfe.evaluation.protocols import average_over_labels, precision_recall_by_label
from lstfe.evaluation.records import DetectionRecord, scored_frames

CURVE_IOU = 0.5

Curves = dict[str, tuple[Floats, float]]
"""Bin of size or motion -> precision at each recall point and average precision, means over labels; bins without
ground truth are absent."""


def write_curves(
    annotations: VideoAnnotations,
    records: Sequence[DetectionRecord],
    protocols: Iterable[str],
    destination: Path,
    *,
    frame_stride: int = 1,
) -> list[Path]:
    """Write `precision_recall_<protocol>.csv` for each protocol and `precision_recall.png`; return the paths.

    Columns: recall, precision (all objects), and precision_<bin> for each bin that the protocol has. The picture
    has the bins of size. Cells are empty where there is no ground truth.
    """
    scored = scored_frames(annotations, records, frame_stride=frame_stride)
    destination.mkdir(parents=True, exist_ok=True)
    paths, curves = [], {}
    for name in protocols:
        protocol = find_protocol(name)
        curves[name] = mean_curves(protocol, precision_recall_by_label(protocol, scored))
        paths.append(destination / f"precision_recall_{name}.csv")
        _write_csv(protocol, curves[name], paths[-1])
    picture = destination / "precision_recall.png"
    _draw(curves).savefig(picture)
    return [*paths, picture]


def mean_curves(protocol: Protocol, by_label: Sequence[PrecisionRecall]) -> Curves:
    """Return the curves at IoU 0.5 (or at the protocol's nearest), mean over labels with ground truth."""
    level = int(np.argmin(np.abs(np.array(protocol.rule.thresholds) - CURVE_IOU)))
    curves: Curves = {}
    for place, name in enumerate(protocol.bins):
        present = [curve.precision[place, level] for curve in by_label if curve.num_ground_truths[place]]
        average = average_over_labels(by_label, protocol, Figure(iou=CURVE_IOU, bin=name))
        if average is not None:
            curves[name] = np.mean(present, axis=0), average
    return curves


def _write_csv(protocol: Protocol, curves: Curves, path: Path) -> None:
    columns = {name: "precision" if name == ALL else f"precision_{name}" for name in protocol.bins}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["recall", *columns.values()])
        for i, recall in enumerate(protocol.recall_points):
            cells = [f"{curves[name][0][i]:.6f}" if name in curves else "" for name in columns]
            writer.writerow([f"{recall:.2f}", *cells])


def _draw(curves: Mapping[str, Curves]) -> Drawing:
    figure = Drawing(figsize=(5.2 * len(curves), 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)  # no window system needed
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, by_bin) in zip(panels, curves.items(), strict=True):
        protocol = find_protocol(name)
        by_size = {size: by_bin[size] for size in protocol.size_bins if size in by_bin}
        for size, (precision, average) in by_size.items():
            mark = "o-" if len(protocol.recall_points) <= 11 else "-"
            width = 2.4 if size == ALL else 1.3
            label = f"{bin_text(protocol, size)}: AP50 {average:.3f}"
            axes.plot(protocol.recall_points, precision, mark, linewidth=width, markersize=4, label=label)
        axes.set(
            title=f"{name}, IoU {CURVE_IOU}", xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.03)
        )
        axes.grid(alpha=0.3)
        if by_size:
            axes.legend(loc="lower left", fontsize=8)
        else:
            axes.text(0.5, 0.5, "no ground truth", ha="center")
    return figure


def bin_text(protocol: Protocol, name: str) -> str:
    """Say in words what a bin holds."""
    if name == ALL:
        return "all objects"
    if name in protocol.motion_bins:
        low, high = protocol.motion_bins[name]
        return f"{name.removeprefix('motion_')} (motion IoU {low:g}-{high:g})"
    low, high = (area**0.5 for area in protocol.size_bins[name])
    return f"{name} (>= {low:.0f} px)" if high > 1e4 else f"{name} ({low:.0f}-{high:.0f} px)"
