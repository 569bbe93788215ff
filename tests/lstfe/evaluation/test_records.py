"""Records on disk, and what of them is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstfe.data.coco_video import VideoAnnotations
from lstfe.errors import UserError
from lstfe.evaluation.records import (
    DetectionError,
    DetectionRecord,
    load_detections,
    save_detections,
    scored_frames,
    to_records,
)
from lstfe.types import Detections

RECORD = DetectionRecord("left", 2, (52.0, 24.0, 14.0, 10.0), 0.75, "drone")


@pytest.mark.parametrize("records", [[], [RECORD, dataclasses.replace(RECORD, frame_id=3, score=0.125)]])
def test_saved_detections_load_as_they_were(tmp_path: Path, records: list[DetectionRecord]) -> None:
    save_detections(records, tmp_path / "detections.json")
    assert load_detections(tmp_path / "detections.json") == records


def test_the_file_is_a_list_of_the_five_documented_keys(tmp_path: Path) -> None:
    save_detections([RECORD], tmp_path / "detections.json")
    assert json.loads((tmp_path / "detections.json").read_text()) == [
        {"video": "left", "frame_id": 2, "bbox": [52.0, 24.0, 14.0, 10.0], "score": 0.75, "category": "drone"}
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Invalid JSON"),
        ("{}", "Input should be a valid array"),
        ('[{"video": "left"}]', "entry 0: frame_id: Field required"),
        (json.dumps([{**dataclasses.asdict(RECORD), "score": "high"}]), "entry 0: score: .* found 'high'"),
        (
            json.dumps([dataclasses.asdict(RECORD), {**dataclasses.asdict(RECORD), "frame_id": 1.5}]),
            "entry 1: frame_id",
        ),
        (json.dumps([{**dataclasses.asdict(RECORD), "bbox": [1, 2, 3]}]), "entry 0: bbox"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_entry(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "detections.json"
    path.write_text(content)
    with pytest.raises(DetectionError, match=message) as caught:
        load_detections(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"detections\.json: not readable: No such file"):
        load_detections(tmp_path / "detections.json")


def test_a_frame_without_detections_gives_no_records() -> None:
    assert to_records(Detections.none(), video="left", frame_id=0, label_names=["drone"]) == []


def test_detections_become_records_of_width_and_height() -> None:
    detections = Detections(
        np.array([[10, 20, 30.5, 44]], np.float32), np.array([0.123456789], np.float32), np.array([2])
    )
    record = to_records(detections, video="left", frame_id=4, label_names=["drone", "bird"])[0]
    assert record == DetectionRecord("left", 4, (10.0, 20.0, 20.5, 24.0), 0.123457, "bird")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "middle"}, "no such video, expected one of left, right"),
        ({"frame_id": 5}, r"no such frame, expected one of 0\.\.4"),
        ({"category": "bird"}, "unknown category 'bird', expected one of drone"),
        ({"score": float("nan")}, "score nan is not a finite number"),
        ({"bbox": (1.0, 2.0, -3.0, 4.0)}, r"bbox \[1.0, 2.0, -3.0, 4.0\] has a negative size"),
        ({"bbox": (1.0, 2.0, float("inf"), 4.0)}, "is not four finite numbers"),
        ({"bbox": (1.0, 2.0, 3.0)}, "is not four finite numbers"),
    ],
)
def test_an_impossible_record_is_refused_with_its_number_video_and_frame(
    annotations: VideoAnnotations, change: dict[str, Any], message: str
) -> None:
    records = [RECORD, RECORD, dataclasses.replace(RECORD, **change)]
    with pytest.raises(DetectionError, match=message) as caught:
        scored_frames(annotations, records)
    assert str(caught.value).startswith(
        f"detection 2 (video {records[2].video!r}, frame {records[2].frame_id}): "
    )


def test_records_of_frames_that_are_not_scored_are_checked_but_left_out(
    annotations: VideoAnnotations,
) -> None:
    skipped = dataclasses.replace(RECORD, frame_id=1)
    scored = scored_frames(annotations, [skipped, RECORD], frame_stride=2)
    assert scored.detection_rows == [1]
    assert scored.frames == [("left", 0), ("left", 2), ("left", 4), *(("right", i) for i in range(0, 9, 2))]
    with pytest.raises(DetectionError, match="detection 0"):
        scored_frames(annotations, [dataclasses.replace(skipped, score=float("nan"))], frame_stride=2)


def test_columns_point_back_to_annotations_and_records(annotations: VideoAnnotations) -> None:
    scored = scored_frames(annotations, [RECORD], frames={"left": [2, 3], "right": [8]})
    assert [annotations.annotations[row].image_id for row in scored.truth_rows] == [3, 4, 14]
    assert scored.truths.frames.tolist() == [0, 1, 2]
    assert scored.frames[scored.detections.frames[0]] == ("left", 2)


def test_an_annotation_without_area_has_that_of_its_box(annotations: VideoAnnotations) -> None:
    entry = dataclasses.replace(annotations.annotations[0], area=0.0)
    scored = scored_frames(dataclasses.replace(annotations, annotations=[entry]), [])
    assert scored.truths.areas.tolist() == [140.0]
