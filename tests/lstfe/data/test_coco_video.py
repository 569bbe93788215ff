from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstfe.data.coco_video import (
    VideoAnnotations,
    clip_bbox,
    clip_to_frames,
    load_annotations,
    save_annotations,
)
from lstfe.data.faults import AnnotationError


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


@pytest.mark.parametrize(
    ("info", "inside"),
    [
        (None, False),
        ("of 2015", False),
        ({"year": 2015}, False),
        ({"corner_pixels_inside": False}, False),
        ({"corner_pixels_inside": True, "year": 2015}, True),
    ],
)
def test_info_says_whether_corner_pixels_are_inside_and_saving_keeps_it(
    tmp_path: Path, content: dict[str, Any], info: object, inside: bool
) -> None:
    for before in ({}, content):
        path = _save({**before, "info": info, **content}, tmp_path / "a.json")
        annotations = load_annotations(path)
        assert annotations.corner_pixels_inside == inside
        save_annotations(annotations, tmp_path / "b.json")
        assert load_annotations(tmp_path / "b.json") == annotations
        assert ("info" in json.loads((tmp_path / "b.json").read_text())) == inside


def test_corner_pixels_inside_is_true_or_false(tmp_path: Path, content: dict[str, Any]) -> None:
    path = _save({**content, "info": {"corner_pixels_inside": "yes"}}, tmp_path / "a.json")
    with pytest.raises(
        AnnotationError, match=r"a\.json:1: info\.corner_pixels_inside: found 'yes', expected true or false"
    ):
        load_annotations(path)


def test_frames_are_listed_in_order_whatever_the_file_says(tmp_path: Path, content: dict[str, Any]) -> None:
    content["images"].reverse()
    assert load_annotations(_save(content, tmp_path / "a.json")).frame_ids("a") == [0, 1]


def test_rows_are_found_whatever_their_order_and_ids(tmp_path: Path) -> None:
    """The index agrees with plain dictionaries on a shuffled file with gaps in its ids."""
    random = np.random.default_rng(0)
    ids = random.choice(10**9, 300, replace=False).tolist()
    videos = [
        {"id": ids[v], "name": name, "file_name": name, "width": 96, "height": 64, "num_frames": 40}
        for v, name in enumerate("cab")
    ]
    images = [
        {"id": ids[10 + 40 * v + f], "video_id": ids[v], "frame_id": f, "width": 96, "height": 64}
        for v in range(2)
        for f in random.permutation(40)[:30].tolist()
    ]
    annotations = [
        {"id": ids[100 + n], "image_id": image["id"], "video_id": image["video_id"], "category_id": 1 + n % 2,
         "bbox": random.uniform(1, 90, 4).tolist(), "instance_id": n}
        for n, image in enumerate(random.choice(images[:25], 90).tolist())
    ]  # fmt: skip
    for rows in (images, annotations):
        random.shuffle(rows)
    categories = [{"id": 2, "name": "two"}, {"id": 1, "name": "one"}]
    content = {"videos": videos, "images": images, "annotations": annotations, "categories": categories}
    loaded = load_annotations(_save(content, tmp_path / "a.json"))
    listed = VideoAnnotations(loaded.videos, list(loaded.images), list(loaded.annotations), loaded.categories)
    for found in (loaded, listed):
        assert list(found.images_by_video) == ["c", "a", "b"]
        for video in found.videos:
            own = sorted((i["frame_id"], i["id"]) for i in images if i["video_id"] == video.id)
            assert found.frame_ids(video.name) == [frame for frame, _ in own]
            assert [(i.frame_id, i.id) for i in found.images_by_video[video.name]] == own
            expected = [[a["id"] for a in annotations if a["image_id"] == image] for _, image in own]
            assert found.num_objects(video.name).tolist() == [len(of_image) for of_image in expected]
            assert [[o.id for o in found.objects(video.name, frame)] for frame, _ in own] == expected
        assert set(found.annotations_by_image) == {a["image_id"] for a in annotations}
        assert all(o.image_id == image for image, of in found.annotations_by_image.items() for o in of)
        with pytest.raises(KeyError):
            found.annotations_by_image[-1]
        with pytest.raises(KeyError):
            found.objects("c", 40)
    assert loaded == listed


def test_only_some_images_keep_only_their_objects(tmp_path: Path, content: dict[str, Any]) -> None:
    annotations = load_annotations(_save(content, tmp_path / "a.json"))
    first = annotations.with_images(np.array([True, False]))
    assert (first.frame_ids("a"), list(first.annotations)) == ([0], [])
    second = annotations.with_images(np.array([False, True]))
    assert (second.frame_ids("a"), [item.id for item in second.annotations]) == ([1], [1, 2])


def test_a_saved_file_is_what_json_makes_of_its_rows(tmp_path: Path, content: dict[str, Any]) -> None:
    annotations = load_annotations(_save(content, tmp_path / "a.json"))
    save_annotations(annotations, tmp_path / "b.json")
    rows = {
        name: [dataclasses.asdict(row) for row in getattr(annotations, name)]
        for name in ("videos", "images", "annotations", "categories")
    }
    del rows["videos"][0]["vid_train_frames"]
    assert (tmp_path / "b.json").read_text() == json.dumps(rows, separators=(",", ":")) + "\n"


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
        (lambda c: c.pop("images"), r"a\.json:1: found no images, expected a COCO-VID file"),
        (lambda c: c["videos"][0].pop("width"), r"a\.json:1: videos\.width: .*required"),
        (lambda c: c["images"][1].update(frame_id="x"), r"a\.json:1: images\.frame_id: .*found 'x'"),
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
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"a\.json:1: annotations\.bbox"),
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
    with pytest.raises(AnnotationError, match=r"none\.json: not readable \(No such file"):
        load_annotations(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(AnnotationError, match=r"broken\.json:1: not readable as JSON"):
        load_annotations(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    with pytest.raises(AnnotationError, match=r"list\.json:1: .*expected a JSON object"):
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


def test_clipping_all_boxes_at_once_gives_what_one_by_one_gives(
    tmp_path: Path, content: dict[str, Any]
) -> None:
    random = np.random.default_rng(0)
    bboxes = np.column_stack([random.uniform(-20, 110, (500, 2)), random.uniform(1, 40, (500, 2))]).tolist()
    content["annotations"] = [
        {"id": n, "image_id": 2, "video_id": 1, "category_id": 7, "bbox": bbox}
        for n, bbox in enumerate(bboxes)
    ]
    annotations = load_annotations(_save(content, tmp_path / "a.json"))
    clipped, num_clipped, num_dropped = clip_to_frames(annotations)
    expected = [(item, clip_bbox(item.bbox, (64, 96))) for item in annotations.annotations]
    kept = [(item.id, bbox) for item, bbox in expected if bbox is not None]
    assert [(item.id, item.bbox) for item in clipped.annotations] == kept
    changed = [bbox for item, bbox in expected if bbox not in (None, item.bbox)]
    assert (num_clipped["a"], num_dropped["a"]) == (len(changed), 500 - len(kept))
    assert 0 < len(changed) < len(kept) < 500
