from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstfe.config import ModelConfig
from lstfe.data.check.findings import ERRORS, KINDS
from lstfe.data.check.report import CheckReport, check_data_set
from lstfe.data.faults import AnnotationError
from lstfe.data.video import VideoWriter, read_video

Content = dict[str, dict[str, Any]]


def _unusable_row(content: Content, raw: Path) -> None:
    content["train"]["annotations"][0]["bbox"] = "wide"


def _duplicate_annotation_id(content: Content, raw: Path) -> None:
    content["train"]["annotations"][1]["id"] = 1


def _duplicate_video_name(content: Content, raw: Path) -> None:
    content["train"]["videos"].append({**content["train"]["videos"][0], "id": 9})


def _duplicate_frame(content: Content, raw: Path) -> None:
    content["train"]["images"].append({**content["train"]["images"][0], "id": 900})


def _unknown_image(content: Content, raw: Path) -> None:
    content["train"]["annotations"][0]["image_id"] = 900


def _unknown_video(content: Content, raw: Path) -> None:
    content["train"]["images"].append({**content["train"]["images"][0], "id": 900, "video_id": 900})


def _crossed_video(content: Content, raw: Path) -> None:
    content["train"]["annotations"][0]["video_id"] = 2


def _unknown_class(content: Content, raw: Path) -> None:
    content["train"]["annotations"][0]["category_id"] = 7


def _categories_differ(content: Content, raw: Path) -> None:
    content["val"]["categories"][0]["name"] = "bird"


def _video_differs(content: Content, raw: Path) -> None:
    content["val"]["videos"].append({**content["train"]["videos"][0], "id": 9, "num_frames": 11})


def _past_the_end(content: Content, raw: Path) -> None:
    content["train"]["images"].append({**content["train"]["images"][0], "id": 900, "frame_id": 10})


def _before_the_start(content: Content, raw: Path) -> None:
    content["train"]["images"].append({**content["train"]["images"][0], "id": 900, "frame_id": -1})


def _train_frame_past_the_end(content: Content, raw: Path) -> None:
    content["train"]["videos"][0]["vid_train_frames"] = [0, 10]


def _box_without_area(content: Content, raw: Path) -> None:
    content["train"]["annotations"][0]["bbox"][2] = 0


def _box_outside(content: Content, raw: Path) -> None:
    content["train"]["annotations"][0] |= {"bbox": [96, 12, 16, 16], "instance_id": 99}


def _object_twice(content: Content, raw: Path) -> None:
    content["train"]["annotations"].append({**content["train"]["annotations"][0], "id": 900})


def _no_objects(content: Content, raw: Path) -> None:
    content["val"]["annotations"] = []


def _missing_video(content: Content, raw: Path) -> None:
    (raw / "videos" / "b.mp4").unlink()


def _truncated_video(content: Content, raw: Path) -> None:
    path = raw / "videos" / "b.mp4"
    path.write_bytes(path.read_bytes()[:-200])


def _empty_picture_folder(content: Content, raw: Path) -> None:
    (raw / "videos" / "b").mkdir()
    content["train"]["videos"][1]["file_name"] = "videos/b"


def _frame_count(content: Content, raw: Path) -> None:
    content["train"]["videos"][0]["num_frames"] = 11


def _frame_size(content: Content, raw: Path) -> None:
    content["train"]["videos"][0]["width"] = 98


def _shared_frame(content: Content, raw: Path) -> None:
    content["val"]["videos"].append({**content["train"]["videos"][0], "id": 9})
    content["val"]["images"].append({**content["train"]["images"][3], "id": 900, "video_id": 9})


def _shared_file(content: Content, raw: Path) -> None:
    shutil.copyfile(raw / "videos" / "a.mp4", raw / "videos" / "c.mp4")


def _box_over_edge(content: Content, raw: Path) -> None:
    content["train"]["annotations"][0]["bbox"] = [-1, 12, 16, 16]


def _track_jump(content: Content, raw: Path) -> None:
    content["train"]["annotations"][5]["bbox"] = [76, 44, 16, 16]


def _shared_video(content: Content, raw: Path) -> None:
    content["val"]["videos"].append({**content["train"]["videos"][0], "id": 9})
    image = content["train"]["images"].pop(9)
    content["train"]["annotations"].pop(9)
    content["val"]["images"].append({**image, "id": 900, "video_id": 9})


def _repeated_file(content: Content, raw: Path) -> None:
    shutil.copyfile(raw / "videos" / "a.mp4", raw / "videos" / "b.mp4")


def _similar_background(content: Content, raw: Path) -> None:
    """The same place in brighter light, another object in it."""
    with VideoWriter(raw / "videos" / "c.mp4", 30, (64, 96)) as video:
        for frame_id, frame in enumerate(read_video(raw / "videos" / "a.mp4")):
            brighter = np.asarray(frame * 0.8 + 40, np.uint8)
            brighter[40:50, 5 * frame_id : 5 * frame_id + 10] = 255
            video.write(brighter)


def _mostly_empty(content: Content, raw: Path) -> None:
    content["train"]["annotations"] = content["train"]["annotations"][:1]


def _anchors_miss(content: Content, raw: Path) -> None:
    for annotation in content["train"]["annotations"]:
        annotation["bbox"] = [12, 12, 4, 4]


def _no_footage(content: Content, raw: Path) -> None:
    shutil.rmtree(raw / "videos")
    (raw / "report.json").write_text('{"annotations_only": true}')


FAULTS = [
    ("unusable_row", _unusable_row),
    ("duplicate_id", _duplicate_annotation_id),
    ("duplicate_id", _duplicate_video_name),
    ("duplicate_id", _duplicate_frame),
    ("unknown_reference", _unknown_image),
    ("unknown_reference", _unknown_video),
    ("unknown_reference", _crossed_video),
    ("unknown_class", _unknown_class),
    ("categories_differ", _categories_differ),
    ("video_differs", _video_differs),
    ("past_the_end", _past_the_end),
    ("past_the_end", _before_the_start),
    ("past_the_end", _train_frame_past_the_end),
    ("box_without_area", _box_without_area),
    ("box_outside", _box_outside),
    ("object_twice", _object_twice),
    ("no_objects", _no_objects),
    ("unreadable_video", _missing_video),
    ("unreadable_video", _truncated_video),
    ("unreadable_video", _empty_picture_folder),
    ("frame_count", _frame_count),
    ("frame_size", _frame_size),
    ("shared_frame", _shared_frame),
    ("shared_file", _shared_file),
    ("box_over_edge", _box_over_edge),
    ("track_jump", _track_jump),
    ("shared_video", _shared_video),
    ("repeated_file", _repeated_file),
    ("similar_background", _similar_background),
    ("mostly_empty", _mostly_empty),
    ("anchors_miss", _anchors_miss),
    ("no_footage", _no_footage),
]


def test_a_clean_data_set_has_no_findings(check: Callable[..., CheckReport]) -> None:
    report = check()
    assert report.findings == []
    assert report.splits == {
        "train": {"videos": 2, "frames": 20, "empty_share": 0.0, "boxes": 20},
        "val": {"videos": 1, "frames": 10, "empty_share": 0.0, "boxes": 10},
    }
    assert {name: seen.num_frames for name, seen in report.footage.items()} == {"a": 10, "b": 10, "c": 10}


@pytest.mark.parametrize(("kind", "change"), FAULTS, ids=[change.__name__[1:] for _, change in FAULTS])
def test_each_fault_is_found_and_nothing_else(
    check: Callable[..., CheckReport], kind: str, change: Callable[[Content, Path], None]
) -> None:
    report = check(change)
    assert [finding.kind for finding in report.findings] == [kind]
    assert (report.num_errors > 0) == (kind in ERRORS)
    assert (report.num_notes > 0) == (kind not in ERRORS)
    assert f"  {kind}: " in report.to_text()


def test_every_kind_of_finding_has_a_fault_here() -> None:
    assert {kind for kind, _ in FAULTS} == KINDS.keys()


def test_cases_are_counted_and_the_first_is_told(check: Callable[..., CheckReport]) -> None:
    def change(content: Content, raw: Path) -> None:
        for annotation in content["train"]["annotations"][3:7]:
            annotation["bbox"][3] = 0

    report = check(change)
    described = json.loads(report.to_json())
    assert described["cases"] == {"box_without_area": 4}
    assert described["findings"][0] | {"message": ""} == {
        "kind": "box_without_area",
        "severity": "error",
        "split": "train",
        "video": "a",
        "count": 4,
        "message": "",
        "frames": [{"video": "a", "frame_id": 3, "bbox": None}, {"video": "a", "frame_id": 4, "bbox": None}],
    }
    assert "annotation 4, frame 3: bbox x 12.0, y 12.0, width 16.0, height 0.0" in report.to_text()
    assert "(and 3 more)" in report.to_text()


def test_a_track_may_be_fast_where_its_frames_are_far_apart(check: Callable[..., CheckReport]) -> None:
    def change(content: Content, raw: Path) -> None:
        del content["train"]["annotations"][1:8]
        content["train"]["annotations"][1]["bbox"] = [76, 44, 16, 16]
        del content["train"]["annotations"][2]

    assert check(change).findings == []


def test_frames_of_a_finding_are_kept_as_pictures(check: Callable[..., CheckReport]) -> None:
    report = check(_track_jump)
    assert sorted(report.footage["a"].pictures) == [4, 5]
    assert report.footage["b"].pictures == {}


def test_a_data_set_without_annotations_cannot_be_checked(
    tmp_path: Path, tiny: Callable[..., ModelConfig]
) -> None:
    with pytest.raises(AnnotationError, match="no such folder"):
        check_data_set(tmp_path / "raw", tiny())
    with pytest.raises(AnnotationError, match=r"holds none of train\.json"):
        check_data_set(tmp_path, tiny())


def test_a_file_that_is_no_coco_video_cannot_be_checked(
    write_raw: Callable[..., Path], tiny: Callable[..., ModelConfig]
) -> None:
    raw = write_raw()
    (raw / "annotations" / "val.json").write_text('{"videos": []}')
    with pytest.raises(AnnotationError, match=r"val.json:1: found no annotations, categories, images"):
        check_data_set(raw, tiny())


def test_an_empty_split_has_no_objects_and_no_other_fault(check: Callable[..., CheckReport]) -> None:
    def change(content: Content, raw: Path) -> None:
        for section in ("videos", "images", "annotations"):
            content["val"][section] = []

    assert [finding.kind for finding in check(change).findings] == ["no_objects"]


def test_rendered_data_has_nothing_to_be_mended(tiny_raw: Path, tiny: Callable[..., ModelConfig]) -> None:
    report = check_data_set(tiny_raw, tiny())
    assert [finding for finding in report.findings if finding.is_error] == []
