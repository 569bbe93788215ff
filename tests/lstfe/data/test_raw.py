from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lstfe.data.coco_video import load_annotations
from lstfe.data.faults import AnnotationError
from lstfe.data.folders import FolderError
from lstfe.data.raw import (
    ImportOptions,
    RawObject,
    RawVideo,
    RawWriter,
    check_video_name,
    clip_objects,
    number_instances,
    write_raw,
)
from lstfe.data.splits import Parts
from lstfe.data.video import VideoInfo


def _object(frame_id: int, instance: int = 0, category: str = "drone") -> RawObject:
    return RawObject(frame_id, (1, 2, 3, 4), category, instance)


def _video(name: str, instances: Sequence[int] = (), **fields: object) -> RawVideo:
    objects = [_object(frame, instance) for frame, instance in enumerate(instances)]
    return RawVideo(name, VideoInfo(96, 64, 10, 25.0), objects, **fields)  # type: ignore[arg-type]


def _write(raw: Path, videos: Sequence[RawVideo], parts: Parts) -> dict[str, object]:
    return write_raw(
        raw, videos, parts, about={"format": "none"}, options=ImportOptions(), categories=["drone"]
    )


def test_no_videos_give_a_report_and_no_splits(tmp_path: Path) -> None:
    report = _write(tmp_path / "raw", [], {})
    assert report == {"format": "none", "splits": {}, "videos": {}}
    assert json.loads((tmp_path / "raw" / "report.json").read_text()) == report
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [
        "annotations",
        "report.json",
        "videos",
    ]
    assert list((tmp_path / "raw" / "annotations").iterdir()) == []


def test_frames_named_for_training_go_to_the_split_that_has_them(tmp_path: Path) -> None:
    video = _video("a", vid_train_frames=[8, 2, 4])
    report = _write(tmp_path / "raw", [video, _video("b")], {"a": ("train", "test"), "b": ("train", "test")})
    named = {
        split: [
            v.vid_train_frames
            for v in load_annotations(tmp_path / "raw/annotations" / f"{split}.json").videos
        ]
        for split in ("train", "test")
    }
    assert named == {"train": [(2, 4), ()], "test": [(8,), ()]}
    assert (
        "vid_train_frames"
        not in json.loads((tmp_path / "raw/annotations/test.json").read_text())["videos"][1]
    )
    assert report["videos"]["a"]["vid_train_frames"] == 3  # type: ignore[index]


def test_splits_of_an_earlier_import_vanish(tmp_path: Path) -> None:
    for split in ("val", "train"):
        with RawWriter(tmp_path) as writer:
            writer.add(_video("a", splits={split: range(10)}), "videos/a.avi")
            writer.finish({})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "report.json"]
    assert [path.name for path in (tmp_path / "annotations").iterdir()] == ["train.json"]


def test_instances_are_unique_across_the_videos_of_a_split(tmp_path: Path) -> None:
    videos = [_video("a", [0, 0, 3]), _video("b", [0, 1])]
    _write(tmp_path / "raw", videos, {"a": ("train",), "b": ("train",)})
    annotations = load_annotations(tmp_path / "raw" / "annotations" / "train.json")
    assert [item.instance_id for item in annotations.annotations] == [1, 1, 2, 3, 4]
    assert [item.image_id for item in annotations.annotations] == [1, 2, 3, 11, 12]
    assert [item.category_id for item in annotations.annotations] == [1] * 5


def test_halves_of_a_video_hold_their_own_frames_and_objects(tmp_path: Path) -> None:
    report = _write(tmp_path / "raw", [_video("a", [7] * 10)], {"a": ("train", "test")})
    for split, frames in (("train", range(5)), ("test", range(5, 10))):
        annotations = load_annotations(tmp_path / "raw" / "annotations" / f"{split}.json")
        assert annotations.frame_ids("a") == list(frames)
        assert [annotations.images[item.image_id - 1].frame_id for item in annotations.annotations] == list(
            frames
        )
        assert {item.instance_id for item in annotations.annotations} == {1}
    assert report["splits"] == {split: {"videos": 1, "frames": 5, "boxes": 5} for split in ("train", "test")}


def test_only_annotated_frames_are_listed(tmp_path: Path) -> None:
    _write(tmp_path / "raw", [_video("a", [0, 0, 0, 0], frames=[1, 3, 5])], {"a": ("all",)})
    annotations = load_annotations(tmp_path / "raw" / "annotations" / "all.json")
    assert annotations.frame_ids("a") == [1, 3, 5]
    assert annotations.videos[0].num_frames == 10
    assert [len(annotations.objects("a", frame)) for frame in (1, 3, 5)] == [1, 1, 0]


def test_categories_are_numbered_as_they_are_met_and_shared_by_all_splits(tmp_path: Path) -> None:
    videos = [_video("a"), _video("b")]
    videos[0].objects = [_object(0, category="bird"), _object(1, category="drone")]
    videos[1].objects = [_object(0, category="ship")]
    _write(tmp_path / "raw", videos, {"a": ("train",), "b": ("val",)})
    for split, categories in (("train", [2, 1]), ("val", [3])):
        annotations = load_annotations(tmp_path / "raw" / "annotations" / f"{split}.json")
        assert annotations.label_names == ["drone", "bird", "ship"]
        assert [item.category_id for item in annotations.annotations] == categories


def test_what_the_importer_changed_is_counted_by_video_and_in_all(tmp_path: Path) -> None:
    videos = [_video("a", counts={"boxes_clipped": 2}), _video("b", counts={"boxes_clipped": 3, "other": 1})]
    report = _write(tmp_path / "raw", videos, {"a": ("all",), "b": ("all",)})
    assert (report["boxes_clipped"], report["other"]) == (5, 1)
    assert json.loads((tmp_path / "raw" / "report.json").read_text())["videos"]["b"]["boxes_clipped"] == 3


def test_a_fault_in_a_later_video_leaves_nothing_behind(tmp_path: Path) -> None:
    def videos() -> Iterator[RawVideo]:
        yield _video("a", [0, 1])
        raise AnnotationError("b.txt:1: broken")

    with pytest.raises(AnnotationError, match="broken"):
        _write(tmp_path / "raw", videos(), {"a": ("all",)})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_fault_while_writing_in_place_leaves_the_earlier_annotations(tmp_path: Path) -> None:
    options = ImportOptions()
    write_raw(tmp_path, [_video("a", [0])], {"a": ("all",)}, about={}, options=options, in_place=True)
    before = (tmp_path / "annotations" / "all.json").read_bytes()
    twice = [_video("a"), _video("a")]
    with pytest.raises(AnnotationError, match="video a comes twice"):
        write_raw(tmp_path, twice, {"a": ("all",)}, about={}, options=options, in_place=True)
    assert (tmp_path / "annotations" / "all.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "report.json"]


def test_an_existing_data_set_is_not_overwritten(tmp_path: Path) -> None:
    _write(tmp_path / "raw", [], {})
    with pytest.raises(FolderError, match="exists already"):
        _write(tmp_path / "raw", [], {})


def test_boxes_are_clipped_to_a_known_frame_and_to_the_origin_of_an_unknown_one() -> None:
    assert clip_objects([], (64, 96)) == ([], {"boxes_clipped": 0, "boxes_dropped": 0})
    boxes = [(-2, 1, 5, 5), (90, 60, 10, 10), (1, 1, 0, 5), (-9, 0, 9, 9), (1.5, 1, 2, 3)]
    objects = [RawObject(0, box, "drone", 0) for box in boxes]
    known, counts = clip_objects(objects, (64, 96))
    assert [item.bbox for item in known] == [(0, 1, 3, 5), (90, 60, 6, 4), (1.5, 1, 2, 3)]
    assert counts == {"boxes_clipped": 2, "boxes_dropped": 2}
    unknown, counts = clip_objects(objects, (0, 0))
    assert [item.bbox for item in unknown] == [(0, 1, 3, 5), (90, 60, 10, 10), (1.5, 1, 2, 3)]
    assert counts == {"boxes_clipped": 1, "boxes_dropped": 2}


def test_objects_of_different_categories_are_never_the_same_instance() -> None:
    assert number_instances([]) == []
    objects = [_object(frame, category=category) for frame in range(3) for category in ("bird", "drone")]
    numbered = number_instances(objects)
    assert [(item.frame_id, item.category) for item in numbered] == [
        (i.frame_id, i.category) for i in objects
    ]
    assert [item.instance for item in numbered] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\x00", "a\nb", "\ud800", "x" * 201]
)
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(AnnotationError, match=r"^here: found .* as name of a video, expected"):
        check_video_name(name, "here")


def test_other_names_are_left_as_they_are() -> None:
    assert check_video_name("Übung 1 (b)-2.5", "here") == "Übung 1 (b)-2.5"
