"""Parts of HTML pages that are one file: pictures and clips inside, no script, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1d2127; --faint: #5b6470; --line: #d5dae1; --band: #f3f5f8;
  --accent: #2f6db5; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ground: #15181c; --text: #e4e7eb; --faint: #9aa4b0; --line: #363c45;
  --band: #1e2228; --accent: #79b0f0; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1080px; padding: 1em;
  background: var(--ground); color: var(--text); overflow-wrap: anywhere; }
h1 { font-size: 1.6em; margin: .4em 0; } h2 { font-size: 1.2em; margin: 1.8em 0 .5em; }
.faint { color: var(--faint); font-size: .87em; }
.wide { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; } caption { text-align: left; padding: .2em 0 .5em; }
th, td { padding: .3em .7em; text-align: left; vertical-align: top; font-weight: normal; overflow-wrap: normal; }
tbody th { min-width: 7em; overflow-wrap: anywhere; }
thead th { font-weight: 600; border-bottom: 2px solid var(--line); }
tbody tr:nth-child(even) { background: var(--band); }
.number { text-align: right; font-variant-numeric: tabular-nums; } td.number { white-space: nowrap; }
@media (max-width: 600px) { table { font-size: .85em; } th, td { padding: .3em .25em; }
  td.number { white-space: normal; } }
figure { margin: 0; } figcaption { margin-bottom: .3em; }
img, video, svg { max-width: 100%; height: auto; display: block; }
"""
"""Light and dark, wide and narrow."""


def document(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """Return the page of these parts; `title` is plain text."""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # An empty icon: a browser would ask for one.
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{STYLE}{style}</style></head>'
    )
    return f"{head}\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, numbers: bool = True) -> str:
    """Return a table whose first column names its rows; cells are HTML, `caption` is too.

    With `numbers` all other columns are aligned to the right.
    """
    kind = ' class="number"' if numbers else ""
    titles = "".join(
        f'<th scope="col"{kind if place else ""}>{cell}</th>' for place, cell in enumerate(header)
    )
    lines = [
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td{kind}>{cell}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    ]
    body = f"<thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody>"
    # A reader without a mouse can scroll it only if it can be focused.
    return f'<div class="wide" tabindex="0"><table><caption>{caption}</caption>{body}</table></div>'


def data_uri(content: bytes, media_type: str) -> str:
    """Return the address that holds the content itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def picture(jpeg: bytes, alt: str) -> str:
    """Return a JPEG as an image; `alt` is plain text."""
    return f'<img alt="{html.escape(alt)}" src="{data_uri(jpeg, "image/jpeg")}">'


def clip(mp4: bytes, label: str) -> str:
    """Return an H.264 clip that plays again and again once started; `label` is plain text."""
    return (
        f'<video controls loop muted playsinline preload="metadata" aria-label="{html.escape(label)}" '
        f'src="{data_uri(mp4, "video/mp4")}"></video>'
    )
