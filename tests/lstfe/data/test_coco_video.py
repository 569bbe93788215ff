from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstfe.data.coco_video import (
    AnnotationError,
    VideoAnnotations,
    clip_bbox,
    clip_to_frames,
    load_annotations,
    save_annotations,
)


@pytest.fixture
def content() -> dict[str, Any]:
    """One video of two frames; the second has a drone and a bird."""
    return {
        "videos": [
            {"id": 1, "name": "a", "file_name": "videos/a.mp4", "width": 96, "height": 64, "num_frames": 2}
        ],
        "images": [
            {"id": 1, "video_id": 1, "frame_id": 0, "width": 96, "height": 64},
            {"id": 2, "video_id": 1, "frame_id": 1, "width": 96, "height": 64},
        ],
        "annotations": [
            {"id": 1, "image_id": 2, "video_id": 1, "category_id": 7, "bbox": [1, 2, 10, 5.5]},
            {"id": 2, "image_id": 2, "video_id": 1, "category_id": 3, "bbox": [40, 30, 8, 8], "score": 1},
        ],
        "categories": [{"id": 7, "name": "drone"}, {"id": 3, "name": "bird"}],
    }


def _save(content: dict[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_file_without_videos_is_valid(tmp_path: Path) -> None:
    empty = VideoAnnotations([], [], [], [])
    save_annotations(empty, tmp_path / "empty.json")
    assert load_annotations(tmp_path / "empty.json") == empty


def test_a_frame_without_objects_has_no_boxes(tmp_path: Path, content: dict[str, Any]) -> None:
    boxes, labels = load_annotations(_save(content, tmp_path / "a.json")).boxes("a", 0)
    assert boxes.shape == (0, 4)
    assert labels.shape == (0,)


def test_boxes_are_corners_and_labels_are_places_in_the_list(tmp_path: Path, content: dict[str, Any]) -> None:
    annotations = load_annotations(_save(content, tmp_path / "a.json"))
    boxes, labels = annotations.boxes("a", 1)
    assert np.array_equal(boxes, np.array([[1, 2, 11, 7.5], [40, 30, 48, 38]], np.float32))
    assert labels.tolist() == [1, 2]
    assert annotations.label_names == ["drone", "bird"]


def test_saving_and_loading_changes_nothing(tmp_path: Path, content: dict[str, Any]) -> None:
    annotations = load_annotations(_save(content, tmp_path / "a.json"))
    save_annotations(annotations, tmp_path / "b.json")
    assert load_annotations(tmp_path / "b.json") == annotations


def test_frames_are_listed_in_order_whatever_the_file_says(tmp_path: Path, content: dict[str, Any]) -> None:
    content["images"].reverse()
    assert load_annotations(_save(content, tmp_path / "a.json")).frame_ids("a") == [0, 1]


def test_all_frames_may_be_current_frames_unless_some_are_named(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    assert load_annotations(_save(content, tmp_path / "a.json")).current_frames("a") == [0, 1]
    content["videos"][0]["vid_train_frames"] = [1]
    assert load_annotations(_save(content, tmp_path / "a.json")).current_frames("a") == [1]
    del content["images"][1], content["annotations"][:]
    assert load_annotations(_save(content, tmp_path / "a.json")).current_frames("a") == [0]


def test_named_current_frames_are_saved_and_no_others(tmp_path: Path, content: dict[str, Any]) -> None:
    for frames in ([], [1]):
        content["videos"][0]["vid_train_frames"] = frames
        annotations = load_annotations(_save(content, tmp_path / "a.json"))
        save_annotations(annotations, tmp_path / "b.json")
        assert load_annotations(tmp_path / "b.json") == annotations
        assert ("vid_train_frames" in (tmp_path / "b.json").read_text()) is bool(frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("images"), r"has no 'images'"),
        (lambda c: c["videos"][0].pop("width"), r"videos\.0\.width: .*required"),
        (lambda c: c["images"][1].update(frame_id="x"), r"images\.1\.frame_id: .*found 'x'"),
        (
            lambda c: c["images"][1].update(frame_id=2),
            r"image 2: frame_id 2 is outside a, which has 2 frames",
        ),
        (
            lambda c: c["images"][1].update(frame_id=0),
            r"images: \(video_id, frame_id\) \(1, 0\) occurs twice",
        ),
        (lambda c: c["images"][1].update(video_id=9), r"image 2: video_id 9 is not in the list"),
        (lambda c: c["annotations"][0].update(image_id=9), r"annotation 1: image_id 9 is not in the list"),
        (lambda c: c["annotations"][0].update(category_id=9), r"annotation 1: category_id 9 is not"),
        (lambda c: c["annotations"][0].update(video_id=2), r"annotation 1: video_id 2, but .* video 1"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 0, 5]), r"annotation 1: bbox .* has no area"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"annotations\.0\.bbox"),
        (lambda c: c["annotations"][1].update(id=1), r"annotations: id 1 occurs twice"),
        (
            lambda c: c["videos"][0].update(vid_train_frames=[0, 2]),
            r"video 1: vid_train_frames has 2, which is outside a, which has 2 frames",
        ),
        (lambda c: c["videos"][0].update(name="../a"), r"video name '\.\./a' cannot be a file's name"),
    ],
)
def test_a_contradiction_is_named(tmp_path: Path, content: dict[str, Any], change: Any, message: str) -> None:
    change(content)
    with pytest.raises(AnnotationError, match=message):
        load_annotations(_save(content, tmp_path / "a.json"))


def test_a_missing_file_and_broken_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"none\.json: no such annotation file"):
        load_annotations(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(AnnotationError, match=r"broken\.json: not readable as JSON"):
        load_annotations(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    with pytest.raises(AnnotationError, match=r"list\.json: expected a JSON object"):
        load_annotations(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("bbox", "clipped"),
    [
        ((1.1, 2.2, 3.3, 4.4), (1.1, 2.2, 3.3, 4.4)),
        ((0, 0, 96, 64), (0, 0, 96, 64)),
        ((-5, 60, 10, 10), (0, 60, 5, 4)),
        ((90, -3, 10, 10), (90, 0, 6, 7)),
        ((96, 0, 5, 5), None),
        ((-5, -5, 5, 5), None),
        ((10, 10, 0, 5), None),
    ],
)
def test_boxes_are_clipped_to_the_frame(
    bbox: tuple[float, float, float, float], clipped: tuple[float, float, float, float] | None
) -> None:
    assert clip_bbox(bbox, (64, 96)) == clipped


def test_clipping_counts_by_video(tmp_path: Path, content: dict[str, Any]) -> None:
    content["annotations"][0]["bbox"] = [-4, 2, 10, 5]
    content["annotations"][1]["bbox"] = [200, 2, 10, 5]
    annotations = load_annotations(_save(content, tmp_path / "a.json"))
    clipped, num_clipped, num_dropped = clip_to_frames(annotations)
    assert (num_clipped, num_dropped) == ({"a": 1}, {"a": 1})
    assert [(item.bbox, item.area) for item in clipped.annotations] == [((0, 2, 6, 5), 30)]
