"""What objects were taken for: the confusion matrix, as numbers, CSV and picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lstfe.evaluation.encounters import Ints
from lstfe.evaluation.matching import UNMATCHED, MatchRule, match
from lstfe.evaluation.records import ScoredFrames

SURE_SCORE = 0.3
"""Detections below it are not asked what they take an object for."""
NOTHING = "nothing"
"""Name of the last row (a detection where no object is) and column (an object that is not found)."""
_RULE = MatchRule(thresholds=(0.5,), best_only=False, crowd_by_detection=True, max_detections=100)


def confusion_matrix(scored: ScoredFrames, score_threshold: float) -> Ints:
    """Count what objects were taken for, by detections of at least a score: (L + 1, L + 1).

    Row: the object's label, last: no object. Column: the detection's label, last: none. Matching looks at
    boxes alone (IoU 0.5, best score first); crowds take no part.
    """
    kept = scored.detections.select(np.flatnonzero(scored.detections.scores >= score_threshold))
    matches = match(scored.truths, kept, scored.truths.crowd[None], _RULE)
    nothing = len(scored.label_names)
    matched = np.full(len(matches.order), UNMATCHED)
    matched[matches.candidates] = matches.matched_to(0, 0)
    taken = matched != UNMATCHED
    columns = kept.labels[matches.order] - 1
    rows = np.where(taken, scored.truths.labels[matched] - 1, nothing) if len(scored.truths) else nothing
    counts = ~taken
    counts[taken] = ~scored.truths.crowd[matched[taken]]
    table = np.zeros((nothing + 1, nothing + 1), np.int64)
    np.add.at(table, (np.broadcast_to(rows, columns.shape)[counts], columns[counts]), 1)
    unseen = ~scored.truths.crowd
    unseen[matched[taken]] = False
    table[:nothing, nothing] = np.bincount(scored.truths.labels[unseen] - 1, minlength=nothing)
    return table


def write_confusion(scored: ScoredFrames, destination: Path) -> list[Path]:
    """Write `confusion.csv` (object, taken_for, count) and `confusion.png`; return the paths."""
    destination.mkdir(parents=True, exist_ok=True)
    counts = confusion_matrix(scored, SURE_SCORE)
    names = [*scored.label_names, NOTHING]
    table, picture = destination / "confusion.csv", destination / "confusion.png"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["object", "taken_for", "count"])
        writer.writerows(
            [names[row], names[column], count] for (row, column), count in np.ndenumerate(counts)
        )
    _draw(names, counts).savefig(picture)
    return [table, picture]


def _draw(names: Sequence[str], counts: Ints) -> Figure:
    side = 2.5 + 0.45 * len(names)
    figure = Figure(figsize=(side + 0.8, side), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)  # no window system needed
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="taken for", ylabel="object", title=f"Score {SURE_SCORE} or more, IoU 0.5")
    if len(names) <= 20:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=9)
    return figure
