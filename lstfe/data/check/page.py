"""The check as an HTML page: one file, pictures inside, no script."""

from __future__ import annotations

import base64
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

MAX_THUMBNAILS = 60
"""Videos shown at the end of the page, spread over all."""
_MAX_ROWS = 200
"""Findings in the table; the JSON report has all."""
_MAX_FIGURES_OF_A_KIND = 8
_OF_WHOLE_VIDEOS = ("shared_file", "repeated_file", "similar_background")
"""Kinds that any frame of the video shows."""
_ERROR_COLOR = (255, 60, 60)
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 1000px; color: #222; padding: 0 1em; }
table { border-collapse: collapse; } td, th { padding: .2em .7em; text-align: left; vertical-align: top; }
tr:nth-child(even) { background: #f4f4f4; } td.number { text-align: right; }
.error { color: #b00020; font-weight: 600; } .note { color: #8a6d00; font-weight: 600; }
figure { display: inline-block; margin: .4em; vertical-align: top; } figcaption { font-size: 12px; max-width: 480px; }
.bar { background: #4a7ebb; height: 1em; }
"""


def write_page(report: CheckReport) -> str:
    """Return the page as text."""
    title = html.escape(f"Check of {report.raw.name}")
    parts = [
        f"<h1>{title}</h1>",
        f"<p><span class=error>{numbered(report.num_errors, 'error')}</span>, to be mended; "
        f"<span class=note>{numbered(report.num_notes, 'note')}</span>, to be looked at.</p>",
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
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    return f"{head}<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"


def _findings_table(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield "<h2>Findings</h2><table><tr><th></th><th>kind</th><th>where</th><th>cases</th><th>the first</th></tr>"
    for finding in findings[:_MAX_ROWS]:
        yield (
            f"<tr><td class={finding.severity}>{finding.severity}</td>"
            f"<td title='{KINDS[finding.kind]}'>{finding.kind}</td>"
            f"<td>{html.escape(finding.where)}</td><td class=number>{finding.count}</td>"
            f"<td>{html.escape(finding.message)}</td></tr>"
        )
    yield "</table>"
    if len(findings) > _MAX_ROWS:
        yield f"<p>{len(findings) - _MAX_ROWS} more are in the JSON report.</p>"


def _shown_findings(report: CheckReport) -> Iterator[str]:
    """Show the frames that were kept, by kind."""
    for kind in count_cases(report.findings):
        figures = [
            figure
            for finding in report.findings
            if finding.kind == kind
            for picture in finding.pictures
            if (figure := _figure(report.footage.get(picture.video), picture, finding))
        ]
        if figures:
            yield f"<h2>{kind}: {KINDS[kind]}</h2>"
            yield from figures[:_MAX_FIGURES_OF_A_KIND]


def _figure(footage: Footage | None, picture: Picture, finding: Finding) -> str:
    """Return the frame with its box; a thumbnail where the finding is about whole videos."""
    if footage is None:
        return ""
    jpeg = footage.pictures.get(picture.frame_id)
    if jpeg is None:
        jpeg = footage.thumbnail if finding.kind in _OF_WHOLE_VIDEOS else b""
    elif picture.bbox is not None:
        jpeg = _with_box(jpeg, footage, picture.bbox)
    if not jpeg:
        return ""
    return _img(jpeg, f"{picture.video}, frame {picture.frame_id}")


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
        yield f"<h3>Square root of the area {title}, px</h3><table>"
        for bin_px, count in counts.items():
            bar = f"<div class=bar style='width:{400 * count / most:.0f}px'></div>"
            yield f"<tr><td>{bin_px}</td><td class=number>{count}</td><td>{bar}</td></tr>"
        yield "</table>"


def _thumbnails(footage: Mapping[str, Footage]) -> Iterator[str]:
    seen = [(name, item) for name, item in footage.items() if item.thumbnail]
    if not seen:
        return
    step = -(-len(seen) // MAX_THUMBNAILS)
    yield "<h2>Videos</h2>"
    yield from (_img(item.thumbnail, f"{name}, {item.num_frames} frames") for name, item in seen[::step])


def _img(jpeg: bytes, caption: str) -> str:
    data = base64.b64encode(jpeg).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'
