"""The report: scores by every protocol side by side, curves, kinds of errors, and the worst misses in motion."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lstfe.evaluation.bootstrap import INTERVAL, video_names
from lstfe.evaluation.confusion import NOTHING, SURE_SCORE, confusion_matrix
from lstfe.evaluation.curves import Curves, bin_text, mean_curves
from lstfe.evaluation.errors import KINDS, break_down, judge
from lstfe.evaluation.presets import ALL, Protocol, find_protocol
from lstfe.evaluation.protocols import precision_recall_by_label
from lstfe.evaluation.records import ScoredFrames
from lstfe.evaluation.report import charts
from lstfe.evaluation.report.charts import Series, histogram, line_chart
from lstfe.evaluation.report.pictures import Footage, show_misses
from lstfe.web_page import document, table

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
    "AP": "mean over the protocol's thresholds",
    "AP50": "IoU 0.5",
    "AP75": "IoU 0.75",
    "AR1": "recall, 1 detection a frame",
    "AR10": "recall, 10 detections a frame",
    "AR100": "recall, 100 detections a frame",
}
_OPERATING_TEXTS = {
    "recall_at_0_1_fp": "recall at 0.1 false positives a frame",
    "recall_at_1_fp": "recall at 1 false positive a frame",
    "F1": "best F1 of all score thresholds",
    "F1_threshold": "the score threshold of that F1",
    "fp_per_empty_frame": "false positives a frame without objects, at that threshold",
}
_KIND_TEXTS = {
    "localisation": "overlaps an object of its class by 0.1 to 0.5",
    "confusion": "right place, wrong class",
    "duplicate": "the object is found already",
    "background": "nothing there",
    "both": "near an object of another class",
    "missed": "objects found by nothing",
}


def write_report(
    path: Path,
    scored: ScoredFrames,
    scores: Scores,
    *,
    title: str = "Evaluation",
    footage: Footage | None = None,
) -> Path:
    """Write the report as one HTML file that opens offline, and return its path.

    `scores` are those of these detections (protocol -> figure -> number), with intervals where they have them.
    Without `footage` there are no pictures, and the report says so. The same input gives the same bytes.
    """
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _about(scored, scores),
        *_scores_table(scores),
        *_class_tables(scores),
        *_curves(scored, scores),
        *_score_histogram(scored),
        *_errors(scored),
        *_confusion(scored),
        *show_misses(footage),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(title, parts, style=_STYLE), encoding="utf-8")
    return path


def _about(scored: ScoredFrames, scores: Scores) -> str:
    first = next(iter(scores.values()), {})
    where = f"Split {html.escape(str(first['split']))}: " if first.get("split") else ""
    videos = len(video_names(scored))
    objects = int((~scored.truths.crowd).sum())
    stride = first.get("frame_stride", 1)
    every = f" (one of {stride})" if stride > 1 else ""
    return (
        f"<p>{where}{videos:,} videos, {len(scored.frames):,} frames{every}, {objects:,} objects, "
        f"{len(scored.detections):,} detections.</p>"
    )


def _scores_table(scores: Scores) -> Iterator[str]:
    texts = {key: about for protocol in scores for key, about in _figure_texts(protocol, scores[protocol])}
    texts |= {
        key: about for key, about in _OPERATING_TEXTS.items() if any(key in row for row in scores.values())
    }
    rows = [
        [
            f'{html.escape(name)}<br><span class="faint">{html.escape(about)}</span>',
            *(_figure_cell(scores[protocol], name) for protocol in scores),
        ]
        for name, about in texts.items()
    ]
    yield "<h2>Scores</h2>"
    caption = '<span class="faint">Below each figure its 95 % interval.</span>'
    yield table(["figure", *map(html.escape, scores)], rows, caption=caption)
    yield (
        '<p class="faint">Every column is another protocol: how boxes are matched, and what is averaged. The same '
        "detections get different numbers, so compare within a column. Intervals come from resampling whole videos; "
        "with few videos they are too narrow rather than too wide, and there are none where fewer than two videos "
        "have such objects. A dash: no such object, or no such figure.</p>"
    )


def _figure_texts(name: str, figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the figures of a protocol, each with what it says and how many objects it rests on."""
    protocol = find_protocol(name)
    numbers = figures.get("num_ground_truths_by_bin", {})
    for key, figure in protocol.figures.items():
        number = figures["num_ground_truths"] if figure.bin == ALL else numbers[figure.bin]
        about = (_FIGURE_TEXTS.get(key, ""), bin_text(protocol, figure.bin), f"{number:,} objects")
        yield key, ", ".join(filter(None, about))


def _figure_cell(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(name)
    if value is None:
        return "&ndash;"
    ends = figures.get(name + INTERVAL)
    between = f'<br><span class="faint">{ends[0]:.3f}&ndash;<wbr>{ends[1]:.3f}</span>' if ends else ""
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


def _curves(scored: ScoredFrames, scores: Scores) -> Iterator[str]:
    yield '<h2>Precision and recall</h2><div class="charts">'
    for name in scores:
        protocol = find_protocol(name)
        curves = mean_curves(protocol, precision_recall_by_label(protocol, scored))
        for what, bins in _bins_by_chart(protocol, curves).items():
            series = [
                Series(f"{bin_text(protocol, key)}: AP50 {average:.3f}", protocol.recall_points, precision)
                for key in bins
                for precision, average in [curves[key]]
            ]
            title = f"Precision over recall by {name} at IoU 0.5{what}"
            chart = line_chart(series, title=title, x_label="recall", y_label="precision")
            caption = f"{html.escape(name)}, IoU 0.5{what}"
            empty = "" if series else ": no object, so no curve"
            yield f"<figure><figcaption>{caption}{empty}</figcaption>{chart}</figure>"
    yield "</div>"


def _bins_by_chart(protocol: Protocol, curves: Curves) -> dict[str, list[str]]:
    """Return which bins a chart of sizes and one of motion show; only those that there is more than one of."""
    sizes = [key for key in protocol.size_bins if key in curves]
    motions = [ALL, *(key for key in protocol.motion_bins if key in curves)]
    if len(motions) == 1:
        return {"": sizes}
    by_motion = {", by motion": motions}
    return {", by size": sizes, **by_motion} if len(sizes) > 1 else by_motion


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
