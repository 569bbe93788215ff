"""The scoring benchmark on a little data: ours and pycocotools agree, and what is amiss is said."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.scoring import FIGURES, largest_difference, report, time_ours, time_pycocotools, write_files


def test_no_difference_between_equal_figures() -> None:
    figures = dict.fromkeys(FIGURES, 0.5)
    assert largest_difference(figures, figures) == 0
    assert largest_difference(figures, {**figures, "AP": None}) == float("inf")
    assert largest_difference(figures, {**figures, "AP": 0.25}) == 0.25


def test_both_tools_give_the_same_figures_on_the_files(tmp_path: Path) -> None:
    truth, found = write_files(tmp_path, 60, 8)
    assert len(json.loads(found.read_text())) == 480
    ours, theirs = time_ours(truth, found), time_pycocotools(truth, found)
    assert largest_difference(ours["figures"], theirs["figures"]) < 1e-9
    assert 0 < ours["figures"]["AP50"] < 1


def test_slow_or_different_results_are_faults() -> None:
    figures = dict.fromkeys(FIGURES, 0.5)
    ours = {"reading": 1.0, "scoring": 1.0, "whole": 2.0, "figures": figures}
    fast = {"reading": 30.0, "scoring": 30.0, "whole": 60.0, "figures": figures}
    table, faults = report({"pycocotools": fast, "ours": ours})
    assert faults == []
    assert "| pycocotools | 30.000 | 30.000 | 60.000 | 30x | 30x | 0.0e+00 |" in table
    slow = {**fast, "scoring": 10.0, "figures": {**figures, "AP": 0.4}}
    assert report({"pycocotools": slow, "ours": ours})[1] == [
        "only 10.0 times as fast as pycocotools, expected 20",
        "differs from pycocotools by 1.0e-01, expected 1e-09 at most",
    ]
