"""The numbers of an evaluation under flat, stable names, for trackers and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lstfe.evaluation.bootstrap import INTERVAL
from lstfe.evaluation.errors import ErrorBreakdown
from lstfe.evaluation.protocols import flatten_scores


def summary_metrics(scores: Mapping[str, Mapping[str, Any]], errors: ErrorBreakdown) -> dict[str, float]:
    """Return `<protocol>.<figure>`, its ends `_low` and `_high`, `errors.<kind>.count` and `.gain_AP50`; no None."""
    ends = {
        f"{name}.{key.removesuffix(INTERVAL)}{end}": value
        for name, figures in scores.items()
        for key, interval in figures.items()
        if key.endswith(INTERVAL) and interval is not None
        for end, value in zip(("_low", "_high"), interval, strict=True)
    }
    return flatten_scores(scores) | ends | flatten_scores({"errors": errors.to_json()})
