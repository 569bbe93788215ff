"""The check as an HTML page: one file, pictures inside, no script."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from lstfe.data.check.findings import KINDS, Finding, Picture, count_cases
from lstfe.data.check.footage import Footage
from lstfe.data.check.report import CheckReport, describe_boxes, describe_split, numbered
from lstfe.types import FloatArray
from lstfe.visualize import draw_boxes
from lstfe.web_page import document, picture, table

MAX_THUMBNAILS = 60
"""Videos shown at the end of the page, spread over all."""
_MAX_ROWS = 200
"""Findings in the table; the JSON report has all."""
_MAX_FIGURES_OF_A_KIND = 8
_OF_WHOLE_VIDEOS = ("shared_file", "repeated_file", "similar_background")
"""Kinds that any frame of the video shows."""
_ERROR_COLOR = (255, 60, 60)
_STYLE = """
.error { color: var(--bad); font-weight: 600; } .note { font-weight: 600; }
figure { display: inline-block; margin: .4em; vertical-align: top; } figcaption { font-size: 12px; max-width: 480px; }
.bar { background: var(--accent); height: 1em; }
"""


def write_page(report: CheckReport) -> str:
    """Return the page as text."""
    title = f"Check of {report.raw.name}"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{_severity('error', report.num_errors)}, to be mended; "
        f"{_severity('note', report.num_notes)}, to be looked at.</p>",
        "<ul>",
        *(
            f"<li>{html.escape(split)}: {describe_split(counts)}</li>"
            for split, counts in report.splits.items()
        ),
        "</ul>",
        *_findings_table(report.findings),
        *_shown_findings(report),
        *_sizes(report.boxes),
        *_thumbnails(report.footage),
    ]
    return document(title, parts, style=_STYLE)


def _severity(name: str, count: int) -> str:
    text = numbered(count, name)
    return f'<span class="{name}">{text}</span>' if count else text


def _findings_table(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield "<h2>Findings</h2>"
    rows = [
        (
            f'<span class="{finding.severity}">{finding.severity}</span>',
            f'<span title="{KINDS[finding.kind]}">{finding.kind}</span>',
            html.escape(finding.where),
            str(finding.count),
            html.escape(finding.message),
        )
        for finding in findings[:_MAX_ROWS]
    ]
    yield table(("", "kind", "where", "cases", "the first"), rows, caption="", numbers=False)
    if len(findings) > _MAX_ROWS:
        yield f"<p>{len(findings) - _MAX_ROWS} more are in the JSON report.</p>"


def _shown_findings(report: CheckReport) -> Iterator[str]:
    """Show the frames that were kept, by kind."""
    for kind in count_cases(report.findings):
        figures = [
            figure
            for finding in report.findings
            if finding.kind == kind
            for shown in finding.pictures
            if (figure := _figure(report.footage.get(shown.video), shown, finding))
        ]
        if figures:
            yield f"<h2>{kind}: {KINDS[kind]}</h2>"
            yield from figures[:_MAX_FIGURES_OF_A_KIND]


def _figure(footage: Footage | None, shown: Picture, finding: Finding) -> str:
    """Return the frame with its box; a thumbnail where the finding is about whole videos."""
    if footage is None:
        return ""
    jpeg = footage.pictures.get(shown.frame_id)
    if jpeg is None:
        jpeg = footage.thumbnail if finding.kind in _OF_WHOLE_VIDEOS else b""
    elif shown.bbox is not None:
        jpeg = _with_box(jpeg, footage, shown.bbox)
    if not jpeg:
        return ""
    return _shown(jpeg, f"{shown.video}, frame {shown.frame_id}")


def _with_box(jpeg: bytes, footage: Footage, bbox: tuple[float, float, float, float]) -> bytes:
    frame = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), np.uint8)
    height, width = footage.image_size or frame.shape[:2]
    x, y, box_width, box_height = bbox
    scale = np.tile((frame.shape[1] / width, frame.shape[0] / height), 2)
    box: FloatArray = (np.array([[x, y, x + box_width, y + box_height]]) * scale).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(draw_boxes(frame, box, [""], [_ERROR_COLOR])).save(file, "JPEG", quality=70)
    return file.getvalue()


def _sizes(boxes: Mapping[str, object]) -> Iterator[str]:
    lines = describe_boxes(boxes)
    if not lines:
        return
    yield "<h2>Boxes and anchors</h2>"
    yield from (f"<p>{html.escape(line)}</p>" for line in lines[1:])
    for title, key in (("in the video", "by_size_px"), ("as the network sees them", "by_size_at_input_px")):
        counts = boxes[key]
        assert isinstance(counts, dict)
        most = max(1, *counts.values())
        rows = [
            (bin_px, str(count), f'<div class="bar" style="width:{400 * count / most:.0f}px"></div>')
            for bin_px, count in counts.items()
        ]
        caption = f"Square root of the area {title}"
        yield table(("px", "boxes", ""), rows, caption=caption, numbers=False)


def _thumbnails(footage: Mapping[str, Footage]) -> Iterator[str]:
    seen = [(name, item) for name, item in footage.items() if item.thumbnail]
    if not seen:
        return
    step = -(-len(seen) // MAX_THUMBNAILS)
    yield "<h2>Videos</h2>"
    yield from (_shown(item.thumbnail, f"{name}, {item.num_frames} frames") for name, item in seen[::step])


def _shown(jpeg: bytes, caption: str) -> str:
    return f"<figure>{picture(jpeg, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"
