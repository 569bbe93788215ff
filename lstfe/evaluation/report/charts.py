"""Charts as inline SVG: they follow the page's colours, light or dark, and need no script."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lstfe.evaluation.encounters import Floats

WIDTH, HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 40
STYLE = """
.chart text { font: 12px system-ui, sans-serif; fill: var(--text); }
.chart .grid { stroke: var(--line); stroke-width: 1; }
.chart .curve { fill: none; stroke-width: 2; } .chart .curve.s0 { stroke-width: 3; }
.legend { list-style: none; padding: 0; margin: .3em 0; font-size: .87em; }
.legend { display: flex; flex-wrap: wrap; gap: .15em 1.1em; }
.legend svg { display: inline-block; vertical-align: middle; margin-right: .4em; }
.s0 { stroke: var(--text); }
.s1 { stroke: #2f7ed8; stroke-dasharray: 7 3; }
.s2 { stroke: #d9541e; stroke-dasharray: 2 3; }
.s3 { stroke: #2e9e5b; stroke-dasharray: 9 3 2 3; }
.s4 { stroke: #9a5fd0; stroke-dasharray: 4 2; }
.s5 { stroke: #c39a00; stroke-dasharray: 12 4; }
.bars .s1 { stroke: none; fill: #2f7ed8; } .bars .s2 { stroke: none; fill: #d9541e; }
"""
"""Series differ in colour and in dashes."""
_NUM_STYLES = 6


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    name: str
    """With what the legend says about it."""
    xs: Sequence[float] | Floats
    ys: Sequence[float] | Floats


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str) -> str:
    """Return a chart of lines within 0..1 both ways, and its legend."""
    ticks = [place / 5 for place in range(6)]
    parts = [_grid_line(_x(tick), vertical=True) + _x_text(_x(tick), f"{tick:g}") for tick in ticks]
    parts += [_grid_line(_y(tick), vertical=False) + _y_text(_y(tick), f"{tick:g}") for tick in ticks]
    for place, line in enumerate(series):
        points = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in zip(line.xs, line.ys, strict=True))
        parts.append(f'<polyline class="curve s{place % _NUM_STYLES}" points="{points}"/>')
    legend = _legend([line.name for line in series])
    return _svg("chart", title, parts + _axis_labels(x_label, y_label)) + legend


def histogram(
    counts: Sequence[tuple[str, Sequence[int]]], edges: Sequence[float], *, title: str, x_label: str
) -> str:
    """Return bars side by side for up to two series, on a logarithmic scale of counts, and the legend."""
    most = max((max(numbers, default=0) for _, numbers in counts), default=0)
    top = max(1, math.ceil(math.log10(most + 1)))
    parts = [_grid_line(_y(power / top), vertical=False) for power in range(top + 1)]
    parts += [_y_text(_y(power / top), _short(10**power)) for power in range(top + 1)]
    width = (_x(edges[1]) - _x(edges[0]) - 2) / len(counts)
    for place, (_, numbers) in enumerate(counts):
        for edge, number in zip(edges, numbers, strict=False):
            if number:
                # One is a bar too: its logarithm would be none.
                share = max(math.log10(number) / top, 0.02)
                left = _x(edge) + 1 + place * width
                parts.append(
                    f'<rect class="s{place + 1}" x="{left:.1f}" y="{_y(share):.1f}" '
                    f'width="{width:.1f}" height="{_y(0) - _y(share):.1f}"/>'
                )
    parts += [_x_text(_x(edge), f"{edge:g}") for edge in edges[:: max(1, (len(edges) - 1) // 5)]]
    names = [f"{name}: {sum(numbers):,}" for name, numbers in counts]
    return _svg("chart bars", title, parts + _axis_labels(x_label, "detections")) + _legend(
        names, first=1, is_solid=True
    )


def _svg(kind: str, title: str, parts: Sequence[str]) -> str:
    text = html.escape(title)
    head = (
        f'<svg class="{kind}" role="img" aria-label="{text}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}">'
    )
    return f"{head}<title>{text}</title>{''.join(parts)}</svg>"


def _legend(names: Sequence[str], *, first: int = 0, is_solid: bool = False) -> str:
    shape, kind = (
        ('<rect width="26" height="9"', "bars") if is_solid else ('<line x2="26" y1="4" y2="4"', "lines")
    )
    items = [
        f'<li><svg class="{kind}" width="26" height="9" aria-hidden="true">{shape} class="s{place % _NUM_STYLES}" '
        f'stroke-width="3"/></svg>{html.escape(name)}</li>'
        for place, name in enumerate(names, start=first)
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _axis_labels(x_label: str, y_label: str) -> list[str]:
    x, y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
    upright = f'transform="rotate(-90 12 {y})"'
    return [
        f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="middle">{html.escape(x_label)}</text>',
        f'<text x="12" y="{y}" text-anchor="middle" {upright}>{html.escape(y_label)}</text>',
    ]


def _grid_line(place: float, *, vertical: bool) -> str:
    if vertical:
        ends = f'x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"'
    else:
        ends = f'x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{place:.1f}" y2="{place:.1f}"'
    return f'<line class="grid" {ends}/>'


def _x_text(place: float, text: str) -> str:
    return f'<text x="{place:.1f}" y="{HEIGHT - _BOTTOM + 15}" text-anchor="middle">{text}</text>'


def _short(number: int) -> str:
    """Return 100, 10k, 1M."""
    for size, letter in ((1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number // size}{letter}"
    return str(number)


def _y_text(place: float, text: str) -> str:
    return f'<text x="{_LEFT - 5}" y="{place + 4:.1f}" text-anchor="end">{text}</text>'


def _x(share: float) -> float:
    return _LEFT + share * (WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM)
