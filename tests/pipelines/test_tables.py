"""Tables of metrics and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.tables import FIGURES, markdown_table, newest_by_method, read_scores, score_row, text_table


def _run(method: str, ap50: float | None, **params: str) -> dict[str, Any]:
    return {
        "params": {"model.method": method, "train.iterations": "600"} | params,
        "metrics": {} if ap50 is None else {"voc07.AP50": ap50},
        "tags": {"data.md5": "d1", "mlflow.runName": f"{method}-run"},
    }


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(("stage", "outcome"), []) == "stage  outcome"
    assert markdown_table(("a",), []) == "| a |\n| --- |"


def test_columns_are_aligned() -> None:
    assert text_table(("a", "b"), [("long", "1"), ("s", "22")]) == "a     b\nlong  1\ns     22"


def test_without_scores_a_row_holds_dashes(tmp_path: Path) -> None:
    assert read_scores(tmp_path / "metrics.json") == {}
    assert score_row({}) == ["-"] * len(FIGURES)


def test_scores_are_named_by_protocol_and_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"coco": {"AP50": 0.5, "APl": None, "split": "test"}}))

    assert read_scores(path) == {"coco.AP50": 0.5}


def test_of_each_method_the_newest_scored_run_is_shown() -> None:
    runs = [_run("lstfe", None), _run("lstfe", 0.8), _run("lstfe", 0.7), _run("faster_rcnn", 0.6)]

    assert newest_by_method(runs) == {"lstfe": runs[1], "faster_rcnn": runs[3]}


def test_runs_of_another_budget_or_other_data_are_not_compared() -> None:
    longer = _run("faster_rcnn", 0.9, **{"train.iterations": "6000"})
    elsewhere = _run("rdn", 0.9)
    elsewhere["tags"] = {"data.md5": "d2"}
    current = _run("lstfe", 0.8)

    assert newest_by_method([current, longer, elsewhere], like=current) == {"lstfe": current}
