"""Plain tables of metrics and runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FIGURES = ("voc07.AP50", "coco.AP", "coco.AP50", "coco.AP75", "coco.APs")
"""What a table shows of the scores: protocol and figure."""

Rows = Sequence[Sequence[str]]


def text_table(header: Sequence[str], rows: Rows) -> str:
    """Return an aligned table, one line a row."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def markdown_table(header: Sequence[str], rows: Rows) -> str:
    """Return the table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read_scores(path: Path) -> dict[str, float]:
    """Read metrics.json ({protocol: {figure: number}}) as dotted names; empty where there is no file."""
    if not path.is_file():
        return {}
    scores: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return {
        f"{protocol}.{figure}": float(value)
        for protocol, figures in scores.items()
        for figure, value in figures.items()
        if isinstance(value, (int, float))
    }


def score_row(scores: Mapping[str, float]) -> list[str]:
    """Return the cells of one row of scores, in the order of FIGURES."""
    return [f"{scores[name]:.3f}" if name in scores else "-" for name in FIGURES]


def newest_by_method(
    runs: Sequence[Mapping[str, Any]], *, like: Mapping[str, Any] | None = None
) -> dict[str, Mapping[str, Any]]:
    """Return the newest scored run of each method; `like` limits them to its data and budget."""
    newest: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        method = run["params"].get("model.method", "?")
        is_scored = any(name in run["metrics"] for name in FIGURES)
        if is_scored and method not in newest and (like is None or budget(run) == budget(like)):
            newest[method] = run
    return newest


def budget(run: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return what two runs must share to be compared: the data and how long they trained."""
    params = run["params"]
    names = ("model.preset", "train.iterations", "train.batch_size", "evaluate.split")
    return (run["tags"].get("data.md5"), *(params.get(name) for name in names))
