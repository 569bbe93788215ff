"""Columns of JSON objects; whole files: test_score_files.py."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from lstfe.evaluation.json_columns import Entries, ScoreFileError, read_json, section, without_collection


def entries(rows: list[object]) -> Entries:
    return Entries(Path("file.json"), "row", rows)


def test_no_rows_give_empty_columns() -> None:
    none = entries([])
    assert none.boxes().shape == (0, 4)
    assert none.numbers("score").shape == (0,)
    assert none.unique("id") == []


def test_a_default_stands_in_for_what_is_missing_or_null() -> None:
    rows = entries([{"area": 4}, {}, {"area": None}])
    assert rows.numbers("area", default=1.5).tolist() == [4, 1.5, 1.5]


def test_flags_are_numbers_or_truths_or_nothing() -> None:
    rows = entries([{"iscrowd": 1}, {"iscrowd": True}, {"iscrowd": 0}, {"iscrowd": None}, {}])
    assert rows.flags("iscrowd").tolist() == [True, True, False, False, False]


def test_numbers_too_large_for_a_float_are_refused() -> None:
    with pytest.raises(ScoreFileError, match=r"row 1: score 1000.* is not a finite number"):
        entries([{"score": 1}, {"score": 10**400}]).numbers("score")


def test_texts_are_no_numbers_of_a_box() -> None:
    with pytest.raises(ScoreFileError, match=r"row 0: bbox \['one', 2, 3, 4\] is not four finite numbers"):
        entries([{"bbox": ["one", 2, 3, 4]}]).boxes()


def test_places_are_looked_up_in_order() -> None:
    assert entries([{"k": "b"}, {"k": "a"}]).places("k", {"a": 0, "b": 1}, "a or b").tolist() == [1, 0]


def test_nan_is_read_so_that_its_entry_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "nan.json").write_text('[{"score": NaN}]')
    (value,) = read_json(tmp_path / "nan.json")
    assert np.isnan(value["score"])


def test_a_section_must_be_a_list() -> None:
    with pytest.raises(ScoreFileError, match=r"file\.json: has no list 'images'"):
        section({"images": {}}, "images", Path("file.json"))


def test_the_collector_is_left_as_it_was() -> None:
    gc.disable()
    try:
        with without_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()
    with without_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
