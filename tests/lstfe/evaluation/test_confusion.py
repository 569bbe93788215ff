"""What objects were taken for, by hand-made cases."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from PIL import Image

from lstfe.evaluation.confusion import confusion_matrix, write_confusion
from lstfe.evaluation.records import scored_frames

from .conftest import FAR, OBJECT, one_frame


def test_without_anything_the_confusion_matrix_is_empty() -> None:
    assert confusion_matrix(scored_frames(*one_frame([], [])), 0.5).tolist() == [[0] * 3] * 3


def test_the_confusion_matrix_counts_what_objects_were_taken_for() -> None:
    scene = one_frame(
        [("drone", OBJECT), ("bird", FAR), ("drone", (200.0, 50.0, 20.0, 20.0))],
        [("drone", OBJECT, 0.9), ("drone", FAR, 0.8), ("bird", (50.0, 150.0, 9.0, 9.0), 0.7), ("bird", OBJECT, 0.4)],
    )  # fmt: skip
    table = confusion_matrix(scored_frames(*scene), 0.5)
    assert table.tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]  # rows: drone, bird, nothing
    assert confusion_matrix(scored_frames(*scene), 0.3)[2].tolist() == [0, 2, 0]


def test_crowds_take_no_part_in_the_confusion_matrix() -> None:
    annotations, records = one_frame([("drone", OBJECT)], [("bird", OBJECT, 0.9)])
    crowd = [dataclasses.replace(entry, iscrowd=1) for entry in annotations.annotations]
    scored = scored_frames(dataclasses.replace(annotations, annotations=crowd), records)
    assert confusion_matrix(scored, 0.5).sum() == 0


def test_the_table_and_the_picture_hold_every_pair_of_names(tmp_path: Path) -> None:
    scene = one_frame([("drone", OBJECT)], [("bird", OBJECT, 0.9), ("bird", FAR, 0.2)])
    table, picture = write_confusion(scored_frames(*scene), tmp_path / "plots")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert [row for row in rows if row["count"] != "0"] == [
        {"object": "drone", "taken_for": "bird", "count": "1"}
    ]
    assert min(Image.open(picture).size) > 200
