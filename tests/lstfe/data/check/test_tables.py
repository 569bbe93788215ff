from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lstfe.data.check.tables import load_tables
from lstfe.data.coco_video import load_annotations


def test_the_columns_say_what_the_annotations_say(write_raw: Callable[..., Path]) -> None:
    raw = write_raw()
    table, _ = load_tables(raw)
    annotations = load_annotations(raw / "annotations" / "train.json")
    frames = {image.id: image.frame_id for image in annotations.images}
    assert table.split == "train"
    assert table.videos == annotations.videos
    assert table.object_frame.tolist() == [frames[item.image_id] for item in annotations.annotations]
    assert (table.object_video + 1).tolist() == [item.video_id for item in annotations.annotations]
    assert table.bboxes.tolist() == [list(item.bbox) for item in annotations.annotations]


def test_unusable_rows_are_told_with_their_line_and_left_out(write_raw: Callable[..., Path]) -> None:
    raw = write_raw()
    path = raw / "annotations" / "val.json"
    content: dict[str, Any] = json.loads(path.read_text())
    content["annotations"][1] = 7
    content["annotations"][2]["id"] = 2**60
    del content["images"][0]["frame_id"]
    path.write_text(json.dumps(content, indent=0))
    table = load_tables(raw)[1]
    assert len(table.unusable) == 3
    assert all(str(path) + ":" in message for message in table.unusable)
    assert (len(table.images), len(table.objects), len(table.bboxes)) == (9, 8, 8)
