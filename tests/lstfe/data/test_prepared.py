from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lstfe.data.coco_video import load_annotations, save_annotations
from lstfe.data.entries import CategoryEntry
from lstfe.data.faults import AnnotationError
from lstfe.data.prepared import load_split, split_path


def test_a_folder_without_any_split_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"annotations/train\.json: no such split, found none"):
        load_split(tmp_path, "train")


def test_a_data_set_that_is_not_prepared_says_how(tmp_path: Path) -> None:
    with pytest.raises(
        AnnotationError, match=r"mine: no such prepared data set; `dvc repro prepare` makes it of"
    ):
        load_split(tmp_path / "mine", "train")


def test_a_missing_split_is_named_with_those_there_are(tiny_prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for split in ("val", "test"):
        split_path(tmp_path, split).write_bytes(split_path(tiny_prepared, split).read_bytes())
    with pytest.raises(AnnotationError, match=r"train\.json: no such split, found test, val; choose one"):
        load_split(tmp_path, "train")


def test_a_split_without_frames_is_refused(tiny_prepared: Path, tmp_path: Path) -> None:
    whole = load_annotations(split_path(tiny_prepared, "val"))
    split_path(tmp_path, "val").parent.mkdir()
    save_annotations(replace(whole, images=[], annotations=[]), split_path(tmp_path, "val"))
    with pytest.raises(AnnotationError, match=r"val\.json: lists no frame"):
        load_split(tmp_path, "val")


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (["plane"], "the split lacks the detector's plane and has drone, unknown to the detector; give"),
        (["drone", "plane", "bird"], "the split lacks the detector's plane, bird; give"),
        ([], "the split has drone, unknown to the detector; give"),
    ],
)
def test_categories_that_are_not_the_detector_s_are_named(
    tiny_prepared: Path, expected: list[str], words: str
) -> None:
    with pytest.raises(AnnotationError) as caught:
        load_split(tiny_prepared, "val", label_names=expected)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{split_path(tiny_prepared, 'val')}: ")
    assert "\n" not in str(caught.value)


def test_the_order_of_categories_counts(tiny_prepared: Path, tmp_path: Path) -> None:
    whole, path = load_annotations(split_path(tiny_prepared, "val")), split_path(tmp_path, "val")
    path.parent.mkdir()
    save_annotations(replace(whole, categories=[*whole.categories, CategoryEntry(2, "bird")]), path)
    load_split(tmp_path, "val", label_names=("drone", "bird"))
    with pytest.raises(AnnotationError, match="categories is drone, bird, the detector's bird, drone; give"):
        load_split(tmp_path, "val", label_names=("bird", "drone"))


def test_a_split_is_its_annotations_and_the_frames_of_its_videos(tiny_prepared: Path) -> None:
    annotations, store = load_split(tiny_prepared, "val")
    assert annotations == load_annotations(tiny_prepared / "annotations" / "val.json")
    (video,) = annotations.images_by_video
    assert store.frame_ids(video) == annotations.frame_ids(video)
