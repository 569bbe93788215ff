"""Which misses are shown, and what their pictures hold."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.evaluation import misses as misses_module
from lstfe.evaluation.misses import PANEL_PX, Miss, draw_miss, find_misses, write_misses
from lstfe.evaluation.records import DetectionRecord

FALSE = DetectionRecord("left", 1, (2.0, 2.0, 9.0, 9.0), 0.8, "drone")


@pytest.fixture
def all_found(annotations: VideoAnnotations) -> list[DetectionRecord]:
    """Every object, in `right` with rising scores from 0.3, in `left` with 0.9."""
    frames = {image.id: image.frame_id for image in annotations.images}
    names = {video.id: video.name for video in annotations.videos}
    return [
        DetectionRecord(
            names[entry.video_id],
            frames[entry.image_id],
            entry.bbox,
            0.9 if names[entry.video_id] == "left" else 0.3 + frames[entry.image_id] / 20,
            "drone",
        )
        for entry in annotations.annotations
    ]


def test_without_objects_and_detections_there_are_no_misses(annotations: VideoAnnotations) -> None:
    assert find_misses(dataclasses.replace(annotations, annotations=[]), [], num_misses=5) == []


def test_what_is_not_found_comes_before_what_is_found_weakly(
    annotations: VideoAnnotations, all_found: list[DetectionRecord]
) -> None:
    records = [record for record in all_found if (record.video, record.frame_id) != ("left", 3)]
    misses = find_misses(annotations, records, num_misses=4)
    assert [(miss.kind, miss.video, miss.frame_id, miss.score) for miss in misses] == [
        ("missed", "left", 3, None),
        ("weak", "right", 0, 0.3),
    ]


def test_large_objects_come_first_among_those_not_found(annotations: VideoAnnotations) -> None:
    objects = [dataclasses.replace(o, area=900.0) if o.image_id == 4 else o for o in annotations.annotations]
    misses = find_misses(dataclasses.replace(annotations, annotations=objects), [], num_misses=1)
    assert (misses[0].video, misses[0].frame_id) == ("left", 3)


def test_false_detections_take_half_of_the_pictures_highest_score_first(
    annotations: VideoAnnotations, all_found: list[DetectionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(misses_module, "_APART_FRAMES", 1)
    false = [dataclasses.replace(FALSE, frame_id=i, score=0.1 * i) for i in range(5)]
    misses = find_misses(annotations, all_found + false, num_misses=4)
    assert [(miss.kind, miss.frame_id) for miss in misses] == [
        ("weak", 0),
        ("weak", 1),
        ("false_positive", 4),
        ("false_positive", 3),
    ]


def test_a_second_detection_of_the_same_object_is_false(
    annotations: VideoAnnotations, all_found: list[DetectionRecord]
) -> None:
    again = dataclasses.replace(all_found[0], score=0.2)
    false = [
        m for m in find_misses(annotations, [*all_found, again], num_misses=9) if m.kind == "false_positive"
    ]
    assert [(miss.video, miss.frame_id, miss.score) for miss in false] == [("left", 0, 0.2)]


def test_neighbouring_frames_are_shown_once(annotations: VideoAnnotations) -> None:
    assert len(find_misses(annotations, [], num_misses=9)) == 2  # one a video: all of its frames are close


def test_crowds_are_no_misses(annotations: VideoAnnotations) -> None:
    crowds = [dataclasses.replace(entry, iscrowd=1) for entry in annotations.annotations]
    assert find_misses(dataclasses.replace(annotations, annotations=crowds), [], num_misses=9) == []


def test_a_picture_shows_the_frames_before_and_after_and_the_drawn_boxes(
    annotations: VideoAnnotations, prepared_dir: Path
) -> None:
    miss = Miss("false_positive", "left", 1, FALSE.bbox, "drone", 0.8)
    strip = draw_miss(miss, annotations, {("left", 1): [FALSE]}, FrameStore(prepared_dir / "frames"))
    assert strip.shape[1] == 3 * PANEL_PX + 8
    panels = strip[-PANEL_PX:]
    reds = [np.median(panels[-40:, x : x + PANEL_PX, 0]) for x in (0, PANEL_PX + 4, 2 * PANEL_PX + 8)]
    assert reds == pytest.approx([0, 10, 20], abs=4)  # a frame's red channel is ten times its number
    outlines = [
        (panels[:, x : x + PANEL_PX] == misses_module._FALSE_COLOR).all(axis=2).sum()
        for x in (0, PANEL_PX + 4, 2 * PANEL_PX + 8)
    ]
    assert outlines[0] == outlines[2] == 0
    assert outlines[1] > 100


def test_beyond_the_ends_of_a_video_the_panel_is_grey(
    annotations: VideoAnnotations, prepared_dir: Path
) -> None:
    miss = Miss("missed", "left", 4, (44.0, 24.0, 14.0, 10.0), "drone", None)
    strip = draw_miss(miss, annotations, {}, FrameStore(prepared_dir / "frames"))
    assert (strip[-PANEL_PX:, -PANEL_PX:] == 60).all()


def test_an_object_larger_than_the_frame_is_shown_whole(
    annotations: VideoAnnotations, prepared_dir: Path
) -> None:
    miss = Miss("missed", "left", 2, (0.0, 0.0, 96.0, 64.0), "drone", None)
    strip = draw_miss(miss, annotations, {}, FrameStore(prepared_dir / "frames"))
    middle = strip[-PANEL_PX:, PANEL_PX + 4 : 2 * PANEL_PX + 4]
    assert (middle[0] == 0).all()  # the frame is wider than high: black above and below
    assert (middle[PANEL_PX // 2, [0, -1]] > 30).any()


def test_the_index_names_every_picture(
    annotations: VideoAnnotations, all_found: list[DetectionRecord], prepared_dir: Path, tmp_path: Path
) -> None:
    store = FrameStore(prepared_dir / "frames")
    paths = write_misses(annotations, [*all_found, FALSE], store, tmp_path / "pictures", num_pictures=2)
    assert [path.name for path in paths] == [
        "01_weak_right_000000.jpg",
        "02_false_positive_left_000001.jpg",
        "index.json",
    ]
    index = json.loads(paths[-1].read_text())
    assert [entry["file"] for entry in index] == [path.name for path in paths[:-1]]
    assert index[1]["score"] == 0.8
    assert Image.open(paths[0]).size[0] == 3 * PANEL_PX + 8


def test_no_pictures_asked_for_leaves_an_empty_index(
    annotations: VideoAnnotations, prepared_dir: Path, tmp_path: Path
) -> None:
    paths = write_misses(annotations, [FALSE], FrameStore(prepared_dir / "frames"), tmp_path, num_pictures=0)
    assert [path.name for path in paths] == ["index.json"]
    assert json.loads(paths[0].read_text()) == []
