"""The report: scores by every protocol side by side, curves, kinds of errors, and the worst misses in motion."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.evaluation.bootstrap import INTERVAL
from lstfe.evaluation.confusion import NOTHING, SURE_SCORE, confusion_matrix
from lstfe.evaluation.curves import bin_text, mean_curves
from lstfe.evaluation.errors import KINDS, break_down, judge
from lstfe.evaluation.misses import Miss, draw_miss, find_misses, miss_text, records_by_frame
from lstfe.evaluation.protocols import (
    Protocol,
    find_protocol,
    ignored_ground_truths,
    precision_recall_by_label,
)
from lstfe.evaluation.records import DetectionRecord, ScoredFrames, scored_frames
from lstfe.evaluation.report import charts
from lstfe.evaluation.report.charts import Series, histogram, line_chart
from lstfe.evaluation.report.clips import clip_around
from lstfe.web_page import clip, document, picture, table

Scores = Mapping[str, Mapping[str, Any]]
"""Protocol -> figure -> number, as in metrics.json."""

_STYLE = (
    charts.STYLE
    + """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 1em 2em; }
.misses { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 1.6em; }
.misses figure > * + * { margin-top: .4em; } .misses video { width: 320px; }
.gain { display: block; height: 4px; margin: 2px 0 0 auto; background: var(--accent); }
"""
)
_FIGURE_TEXTS = {
    "AP": "mean over IoU thresholds",
    "AP50": "IoU 0.5",
    "AP75": "IoU 0.75",
    "AR1": "recall, 1 detection a frame",
    "AR10": "recall, 10 detections a frame",
    "AR100": "recall, 100 detections a frame",
}
_KIND_TEXTS = {
    "localisation": "overlaps an object of its class by 0.1 to 0.5",
    "confusion": "right place, wrong class",
    "duplicate": "the object is found already",
    "background": "nothing there",
    "both": "near an object of another class",
    "missed": "objects found by nothing",
}
_JPEG_QUALITY = 82


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What the report is about."""

    annotations: VideoAnnotations
    records: Sequence[DetectionRecord]
    scores: Scores
    scored: ScoredFrames
    frame_stride: int


def write_report(
    path: Path,
    annotations: VideoAnnotations,
    records: Sequence[DetectionRecord],
    scores: Scores,
    *,
    store: FrameStore | None = None,
    num_pictures: int = 12,
    frame_stride: int = 1,
    title: str = "Evaluation",
) -> Path:
    """Write the report as one HTML file that opens offline, and return its path.

    `scores` are those of these detections (protocol -> figure -> number), with intervals where they have them.
    Without `store` there are no pictures, and the report says so. The same input gives the same bytes.
    """
    scored = scored_frames(annotations, records, frame_stride=frame_stride)
    evaluated = Evaluated(annotations, records, scores, scored, frame_stride)
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        *_about(evaluated),
        *_scores_table(evaluated),
        *_class_tables(scores),
        *_curves(evaluated),
        *_score_histogram(scored),
        *_errors(scored),
        *_confusion(scored),
        *_misses(evaluated, store, num_pictures),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(title, parts, style=_STYLE), encoding="utf-8")
    return path


def _about(evaluated: Evaluated) -> Iterator[str]:
    scored = evaluated.scored
    split = next((figures["split"] for figures in evaluated.scores.values() if figures.get("split")), None)
    videos = len({video for video, _ in scored.frames})
    objects = int((~scored.truths.crowd).sum())
    where = f"Split {html.escape(str(split))}: " if split else ""
    stride = f", every {evaluated.frame_stride}th frame" if evaluated.frame_stride > 1 else ""
    yield (
        f"<p>{where}{videos:,} videos, {len(scored.frames):,} frames{stride}, {objects:,} objects, "
        f"{len(scored.detections):,} detections.</p>"
    )


def _scores_table(evaluated: Evaluated) -> Iterator[str]:
    scores = evaluated.scores
    protocols = {name: find_protocol(name) for name in scores}
    names = list(dict.fromkeys(name for protocol in protocols.values() for name in protocol.figures))
    rows = []
    for name in names:
        about = _FIGURE_TEXTS.get(name, "")
        owner = next(protocol for protocol in protocols.values() if name in protocol.figures)
        about = " · ".join(filter(None, (about, _bin_and_count(owner, name, evaluated.scored))))
        title = f'{html.escape(name)}<br><span class="faint">{html.escape(about)}</span>'
        rows.append([title, *(_figure_cell(scores[protocol], name) for protocol in protocols)])
    yield "<h2>Scores</h2>"
    caption = '<span class="faint">Below each figure its 95 % interval.</span>'
    yield table(["figure", *map(html.escape, protocols)], rows, caption=caption)
    yield (
        '<p class="faint">Every column is another protocol: how boxes are matched, and what is averaged. The same '
        "detections get different numbers, so compare within a column. Intervals come from resampling whole videos; "
        "with few videos they are too narrow rather than too wide, and there are none where fewer than two videos "
        "have such objects. A dash: no such object, or no such figure.</p>"
    )


def _bin_and_count(protocol: Protocol, name: str, scored: ScoredFrames) -> str:
    size = protocol.figures[name].size
    ignored = ignored_ground_truths(scored.truths, [protocol.size_bins[size]])
    return f"{bin_text(protocol, size)}, {int((~ignored).sum()):,} objects"


def _figure_cell(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(name)
    if value is None:
        return "&ndash;"
    ends = figures.get(name + INTERVAL)
    between = f'<br><span class="faint">{ends[0]:.3f}&ndash;{ends[1]:.3f}</span>' if ends else ""
    return f"{value:.3f}{between}"


def _class_tables(scores: Scores) -> Iterator[str]:
    """Show the figures of each class, one table a protocol."""
    tables = {name: figures["per_class"] for name, figures in scores.items() if figures.get("per_class")}
    if tables:
        yield "<h2>Classes</h2>"
    for name, by_class in tables.items():
        shown = [
            key for key in find_protocol(name).class_figures if any(key in row for row in by_class.values())
        ]
        rows = [
            [html.escape(label), *(_figure_cell(row, key) for key in shown), f"{row['num_ground_truths']:,}"]
            for label, row in by_class.items()
        ]
        yield table(["class", *map(html.escape, shown), "objects"], rows, caption=html.escape(name))


def _curves(evaluated: Evaluated) -> Iterator[str]:
    yield '<h2>Precision and recall</h2><div class="charts">'
    for name in evaluated.scores:
        protocol = find_protocol(name)
        curves = mean_curves(protocol, precision_recall_by_label(protocol, evaluated.scored))
        series = [
            Series(
                f"{bin_text(protocol, size)}: AP50 {precision.mean():.3f}", protocol.recall_points, precision
            )
            for size, precision in curves.items()
        ]
        title = f"Precision over recall by {name} at IoU 0.5"
        chart = line_chart(series, title=title, x_label="recall", y_label="precision")
        empty = "" if series else " No object, so no curve."
        yield f"<figure><figcaption>{html.escape(name)}, IoU 0.5.{empty}</figcaption>{chart}</figure>"
    yield "</div>"


def _score_histogram(scored: ScoredFrames) -> Iterator[str]:
    verdicts = judge(scored)
    # The values that records hold end in 0..1; a detector with other scores gets edges of its own.
    scores = scored.detections.scores
    edges = np.linspace(min(0.0, scores.min(initial=0.0)), max(1.0, scores.max(initial=1.0)), 21)
    counts = [
        (name, np.histogram(scores[chosen], edges)[0].tolist())
        for name, chosen in (("found an object", verdicts.right), ("wrong", verdicts.wrong))
    ]
    places = np.linspace(0.0, 1.0, 21).tolist()
    title = "How many detections have which score, those that found an object and wrong ones"
    chart = histogram(counts, places, title=title, x_label=_score_axis(edges.tolist()))
    yield "<h2>Scores of the detections</h2>"
    yield (
        '<figure><figcaption class="faint">At IoU 0.5; counts on a logarithmic scale.</figcaption>'
        f"{chart}</figure>"
    )


def _score_axis(edges: Sequence[float]) -> str:
    return (
        "score" if (edges[0], edges[-1]) == (0.0, 1.0) else f"score, 0 = {edges[0]:.3g}, 1 = {edges[-1]:.3g}"
    )


def _errors(scored: ScoredFrames) -> Iterator[str]:
    everything = break_down(scored)
    kept = np.flatnonzero(scored.detections.scores >= SURE_SCORE)
    sure = break_down(_with_detections(scored, kept))
    most = max([gain for gain in everything.gains.values() if gain], default=1.0)
    rows = [
        [
            f'{kind}<br><span class="faint">{_KIND_TEXTS[kind]}</span>',
            f"{sure.counts[kind]:,}",
            f"{everything.counts[kind]:,}",
            _gain_cell(everything.gains[kind], most),
        ]
        for kind in KINDS
    ]
    yield "<h2>Errors</h2>"
    header = ["kind", f"score &ge; {SURE_SCORE}", "all", "AP50 if mended"]
    yield table(header, rows, caption='<span class="faint">At IoU 0.5, one kind an error.</span>')
    yield (
        '<p class="faint">Kinds and gains as in TIDE (Bolya et al., 2020): the last column is what AP50 would gain if '
        "all errors of this kind, and no other, were mended. Gains do not add up.</p>"
    )


def _with_detections(scored: ScoredFrames, rows: Any) -> ScoredFrames:
    kept = [scored.detection_rows[row] for row in rows.tolist()]
    detections = scored.detections.select(rows)
    return ScoredFrames(scored.frames, scored.label_names, scored.truths, scored.truth_rows, detections, kept)


def _gain_cell(gain: float | None, most: float) -> str:
    if gain is None:
        return "&ndash;"
    width = max(0.0, 90 * gain / most)
    return f'{gain:+.3f}<span class="gain" style="width:{width:.0f}%"></span>'


def _confusion(scored: ScoredFrames) -> Iterator[str]:
    if len(scored.label_names) < 2:
        return
    counts = confusion_matrix(scored, SURE_SCORE).tolist()
    names = [html.escape(name) for name in scored.label_names]
    rows = [
        [name, *(f"{count:,}" for count in row)]
        for name, row in zip([*names, f"<i>{NOTHING}</i>"], counts, strict=True)
    ]
    caption = (
        '<span class="faint">Row: what was there. Column: what it was taken for, by detections of score '
        f"{SURE_SCORE} or more, at IoU 0.5.</span>"
    )
    yield "<h2>Confusion</h2>" + table(["object", *names, f"<i>{NOTHING}</i>"], rows, caption=caption)


def _misses(evaluated: Evaluated, store: FrameStore | None, num_pictures: int) -> Iterator[str]:
    if num_pictures == 0:
        return
    yield "<h2>Worst misses</h2>"
    if store is None:
        yield "<p>The frames were not given, so there are no pictures here.</p>"
        return
    misses = find_misses(
        evaluated.annotations, evaluated.records, num_misses=num_pictures, frame_stride=evaluated.frame_stride
    )
    if not misses:
        yield "<p>None: every object was found, and nothing else.</p>"
        return
    yield (
        '<p class="faint">Objects that were not found or only weakly, then false detections with high scores. Green: '
        "ground truth. Orange: detections and their scores. Red: the false detection.</p>"
    )
    by_frame = records_by_frame(evaluated.records)
    yield '<div class="misses">'
    yield from (_miss_figure(miss, evaluated.annotations, by_frame, store) for miss in misses)
    yield "</div>"


def _miss_figure(
    miss: Miss,
    annotations: VideoAnnotations,
    by_frame: Mapping[tuple[str, int], Sequence[DetectionRecord]],
    store: FrameStore,
) -> str:
    said = f"{miss_text(miss)}: {miss.video}, frame {miss.frame_id}"
    file = io.BytesIO()
    strip = draw_miss(miss, annotations, by_frame, store, with_title=False)
    Image.fromarray(strip).save(file, "JPEG", quality=_JPEG_QUALITY)
    image = picture(file.getvalue(), f"{said}; the frame before, the frame, the frame after")
    moving = clip(clip_around(miss, annotations, by_frame, store), f"clip around {said}")
    return f"<figure><figcaption>{html.escape(said)}</figcaption>{image}{moving}</figure>"
