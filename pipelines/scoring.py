"""`lstfe score`: any detector's output against any ground truth, the presets side by side."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lstfe.errors import UserError
from lstfe.evaluation.bootstrap import INTERVAL, add_intervals
from lstfe.evaluation.presets import PROTOCOLS
from lstfe.evaluation.protocols import score_frames
from lstfe.evaluation.report.page import write_report
from lstfe.evaluation.score_files import read_scored
from pipelines.tables import text_table

EVERY = "all"
_RESAMPLES = 1000
_COUNTS = ("num_frames", "num_empty_frames", "num_ground_truths", "num_detections")
_NOT_A_FIGURE = (*_COUNTS, "num_videos", "split", "frame_stride", "num_ground_truths_by_bin", "per_class")


def score_files(
    ground_truth: Path,
    detections: Path,
    protocols: Sequence[str],
    *,
    output: Path | None = None,
    report: Path | None = None,
    resamples: int | None = None,
    frame_stride: int = 1,
) -> str:
    """Score, write metrics.json and the report where `output` and `report` say, and return what to print.

    Intervals come from `resamples` resamples of the videos: 1000 for a report unless given, else none.
    """
    names = list(dict.fromkeys(PROTOCOLS if EVERY in protocols else protocols))
    files = read_scored(ground_truth, detections, frame_stride=frame_stride)
    scores = score_frames(files.frames, names, frame_stride=frame_stride, split=ground_truth.stem)
    if resamples is None:
        resamples = _RESAMPLES if report else 0
    if resamples:
        scores = add_intervals(scores, files.frames, resamples=resamples, seed=0)
    lines = [figure_table(scores), *_class_tables(scores), "", _counts(scores[names[0]])]
    lines += [f"note: {note}" for note in files.notes]
    if output is not None:
        _write(scores, output)
        lines.append(f"written: {output}")
    if report is not None:
        title = f"{detections.name} against {ground_truth.name}"
        with _writable(report, "the report"):
            write_report(report, files.frames, scores, title=title)
        lines.append(f"written: {report}")
    return "\n".join(lines)


def figure_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the figures of all presets side by side; "null" without ground truth, "" where there is no such one."""
    names = dict.fromkeys(
        name
        for figures in scores.values()
        for name in figures
        if name not in _NOT_A_FIGURE and not name.endswith(INTERVAL)
    )
    rows = [[name, *(_cell(figures, name) for figures in scores.values())] for name in names]
    return text_table(["figure", *scores], rows)


def _class_tables(scores: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Yield a table of each preset's first figure by class, where there is more than one."""
    tables = {name: figures["per_class"] for name, figures in scores.items() if "per_class" in figures}
    if not tables:
        return
    firsts = {name: next(iter(PROTOCOLS[name].figures)) for name in tables}
    classes = next(iter(tables.values()))
    rows = [
        [
            label,
            *(_cell(table[label], firsts[name]) for name, table in tables.items()),
            str(row["num_ground_truths"]),
        ]
        for label, row in classes.items()
    ]
    yield ""
    yield text_table(["class", *(f"{name} {first}" for name, first in firsts.items()), "objects"], rows)


def _cell(figures: Mapping[str, Any], name: str) -> str:
    if name not in figures:
        return ""
    value = figures[name]
    return "null" if value is None else f"{value:.4f}"


def _counts(figures: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{figures[name]} {name.removeprefix('num_').replace('_', ' ')}" for name in _COUNTS)
    by_bin = figures.get("num_ground_truths_by_bin", {})
    bins = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in by_bin.items())
    return f"{counts}; split {figures['split']}, frame stride {figures['frame_stride']}" + (
        f"\nground truths: {bins}" if bins else ""
    )


def _write(scores: Mapping[str, Any], output: Path) -> None:
    with _writable(output, "the figures"):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _writable(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: not writable ({error.strerror}), expected a file for {what}") from None
