from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstfe.data.coco_video import VideoAnnotations, load_annotations
from lstfe.data.faults import AnnotationError
from lstfe.data.importers.coco_video import import_coco_video
from lstfe.data.importers.fl_drones import import_fl_drones
from lstfe.data.raw import ImportOptions

NONE = ImportOptions(split="none")
ALONE = ImportOptions(split="none", annotations_only=True)
SHARED = os.environ.get("LSTFE_SHARED", "")


def _content(*names: str, num_frames: int = 4) -> dict[str, Any]:
    """Videos of 96x64 pixels, each with a box in its frames 0 and 1 and an empty frame 3."""
    videos, images, annotations = [], [], []
    for video, name in enumerate(names, start=10):
        videos.append(
            {"id": video, "name": name, "width": 96, "height": 64, "fps": 25, "num_frames": num_frames}
        )
        for frame in (3, 1, 0):
            images.append({"id": 100 * video + frame, "video_id": video, "frame_id": frame, "file_name": "x"})
        for frame in (1, 0):
            annotations.append(
                {
                    "id": 100 * video + frame,
                    "image_id": 100 * video + frame,
                    "category_id": 7,
                    "bbox": [frame - 0.5, 2, 10.25, 8],
                    "instance_id": 70,
                    "segmentation": [[1, 2, 3]],
                }
            )
    categories = [{"id": 9, "name": "bird", "supercategory": "x"}, {"id": 7, "name": "drone"}]
    return {
        "info": {"year": 2024, "numbers": [1, 2.5, None, True]},
        "annotations": annotations,
        "images": images,
        "videos": videos,
        "categories": categories,
    }


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def _load(raw: Path, split: str = "all") -> VideoAnnotations:
    return load_annotations(raw / "annotations" / f"{split}.json")


def test_a_file_of_empty_lists_is_a_data_set_without_videos(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", {"videos": [], "images": [], "annotations": [], "categories": []})
    assert import_coco_video(path, tmp_path / "raw", NONE)["splits"] == {}


def test_three_videos_come_over_whatever_the_order_of_lists_and_rows(
    tmp_path: Path, write_video: Callable[[Path, int], None]
) -> None:
    for name in "abc":
        write_video(tmp_path / "videos" / f"{name}.mp4", 4)
    path = _write(tmp_path / "annotations" / "mine.json", _content("a", "b", "c"))
    report = import_coco_video(path, tmp_path / "raw", NONE)
    annotations = _load(tmp_path / "raw")
    assert [video.file_name for video in annotations.videos] == [f"videos/{name}.mp4" for name in "abc"]
    for name in "abc":
        assert annotations.frame_ids(name) == [0, 1, 3]
        assert [annotations.objects(name, frame)[0].bbox for frame in (0, 1)] == [
            (0, 2, 9.75, 8),
            (0.5, 2, 10.25, 8),
        ]
        assert annotations.objects(name, 3) == []
    assert [item.instance_id for item in annotations.annotations] == [1, 1, 2, 2, 3, 3]
    assert annotations.label_names == ["bird", "drone"]
    assert {item.category_id for item in annotations.annotations} == {2}
    assert report["boxes_clipped"] == 3


def test_frames_are_named_for_training_by_videos_or_by_images(tmp_path: Path) -> None:
    content = _content("a", "b", "c")
    content["videos"][0]["vid_train_frames"] = [3, 0]
    for image in content["images"]:
        image["is_vid_train_frame"] = image["video_id"] == 11 and image["frame_id"] == 1
    import_coco_video(_write(tmp_path / "a.json", content), tmp_path / "raw", ALONE)
    assert [video.vid_train_frames for video in _load(tmp_path / "raw").videos] == [(0, 3), (1,), ()]
    content["videos"][0]["vid_train_frames"] = [4]
    with pytest.raises(AnnotationError, match=r"a\.json:\d+: .*4.*expected"):
        import_coco_video(_write(tmp_path / "a.json", content), tmp_path / "other", ALONE)


def test_the_splits_of_a_folder_are_kept_or_replaced(tmp_path: Path) -> None:
    _write(tmp_path / "source" / "train.json", _content("a", "b"))
    _write(tmp_path / "source" / "test.json", _content("c"))
    report = import_coco_video(tmp_path / "source", tmp_path / "raw", ImportOptions(annotations_only=True))
    assert {split: counts["videos"] for split, counts in report["splits"].items()} == {"train": 2, "test": 1}
    report = import_coco_video(tmp_path / "source", tmp_path / "one", ALONE)
    assert report["splits"] == {"all": {"videos": 3, "frames": 9, "boxes": 6}}


def test_a_video_may_be_shared_by_splits_but_no_frame_of_it(tmp_path: Path) -> None:
    for split, frames in (("train", (0, 1)), ("val", (3,))):
        content = _content("a")
        content["images"] = [row for row in content["images"] if row["frame_id"] in frames]
        content["annotations"] = [row for row in content["annotations"] if row["id"] % 100 in frames]
        _write(tmp_path / "source" / f"{split}.json", content)
    import_coco_video(tmp_path / "source", tmp_path / "raw", ImportOptions(annotations_only=True))
    assert _load(tmp_path / "raw", "train").frame_ids("a") == [0, 1]
    assert _load(tmp_path / "raw", "val").frame_ids("a") == [3]
    _write(tmp_path / "source" / "test.json", _content("a"))
    with pytest.raises(
        AnnotationError, match=r"found \d as frame_id again for the same video, expected each"
    ):
        import_coco_video(tmp_path / "source", tmp_path / "other", ImportOptions(annotations_only=True))


def test_own_raw_data_comes_back_the_same(tiny_raw: Path, tmp_path: Path) -> None:
    import_coco_video(tiny_raw, tmp_path / "raw", ImportOptions())
    for split in ("train", "val", "test"):
        assert _load(tmp_path / "raw", split) == _load(tiny_raw, split)
        path = Path("annotations") / f"{split}.json"
        assert json.loads((tmp_path / "raw" / path).read_text()) == json.loads((tiny_raw / path).read_text())


def test_files_keep_whether_corner_pixels_are_inside_and_must_agree(tmp_path: Path) -> None:
    inside = {**_content("a"), "info": {"corner_pixels_inside": True}}
    _write(tmp_path / "source" / "train.json", inside)
    _write(tmp_path / "source" / "test.json", {**_content("b"), "info": {"corner_pixels_inside": True}})
    options = ImportOptions(annotations_only=True)
    import_coco_video(tmp_path / "source", tmp_path / "raw", options)
    assert [_load(tmp_path / "raw", split).corner_pixels_inside for split in ("train", "test")] == [True] * 2
    _write(tmp_path / "source" / "test.json", _content("b"))
    with pytest.raises(
        AnnotationError,
        match=r"test\.json: info\.corner_pixels_inside: found False, expected True as in train\.json",
    ):
        import_coco_video(tmp_path / "source", tmp_path / "other", options)


def test_slashes_in_names_find_folders_of_pictures_and_are_replaced(
    tmp_path: Path, write_pictures: Callable[[Path, Sequence[str]], None]
) -> None:
    write_pictures(tmp_path / "source" / "train" / "v", [f"{frame}.jpg" for frame in range(4)])
    _write(tmp_path / "source" / "all.json", _content("train/v"))
    report = import_coco_video(tmp_path / "source", tmp_path / "raw", NONE)
    assert _load(tmp_path / "raw").videos[0].file_name == "videos/train__v"
    assert report["names_changed"] == 1
    path = _write(tmp_path / "two.json", _content("a/b", "a__b"))
    with pytest.raises(AnnotationError, match="videos a/b and a__b would both be called a__b"):
        import_coco_video(path, tmp_path / "other", ALONE)


def test_objects_without_instances_are_associated(tmp_path: Path) -> None:
    content = _content("a")
    for row in content["annotations"]:
        del row["instance_id"]
    import_coco_video(_write(tmp_path / "a.json", content), tmp_path / "raw", ALONE)
    assert [item.instance_id for item in _load(tmp_path / "raw").annotations] == [1, 1]


def test_crowds_stay_crowds(tmp_path: Path) -> None:
    content = _content("a")
    content["annotations"][0]["iscrowd"] = 1
    import_coco_video(_write(tmp_path / "a.json", content), tmp_path / "raw", ALONE)
    assert [item.iscrowd for item in _load(tmp_path / "raw").annotations] == [0, 1]


def test_annotations_that_do_not_fit_the_video_are_named(
    tmp_path: Path, write_video: Callable[[Path, int], None]
) -> None:
    write_video(tmp_path / "videos" / "a.mp4", 3)
    path = _write(tmp_path / "a.json", _content("a", num_frames=3))
    with pytest.raises(AnnotationError, match=r"a\.json:\d+: frame 3 is past the end of a"):
        import_coco_video(path, tmp_path / "raw", NONE)
    write_video(tmp_path / "videos" / "a.mp4", 4)
    content = _content("a")
    content["videos"][0]["width"] = 192
    _write(tmp_path / "a.json", content)
    with pytest.raises(
        AnnotationError, match=r"a\.json:\d+: found 192x64 pixels for a, expected 96x64 as in"
    ):
        import_coco_video(path, tmp_path / "raw", NONE)


def test_a_source_without_files_or_with_too_many_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"no COCO-VID file, expected a \.json file or a folder"):
        import_coco_video(tmp_path, tmp_path / "raw", NONE)
    for name in ("all", "val"):
        _write(tmp_path / f"{name}.json", _content("a"))
    with pytest.raises(AnnotationError, match=r"all\.json: stands beside val\.json"):
        import_coco_video(tmp_path, tmp_path / "raw", NONE)


def test_malformed_files_are_refused_by_file_and_line(refuse_malformed: Callable[..., None]) -> None:
    text = json.dumps(_content("a", "b", "c"), indent=1).encode()
    refuse_malformed(import_coco_video, {"all.json": text}, ["all.json"])


@pytest.mark.skipif(not SHARED, reason="LSTFE_SHARED is not set")
@pytest.mark.parametrize("name", ["drones-dev", "drones-dev-ir"])
def test_real_clips_come_over_alike_from_texts_and_from_json(tmp_path: Path, name: str) -> None:
    source = Path(SHARED) / "data" / name
    lists = tmp_path / "lists"
    lists.mkdir()
    for split in ("train", "test"):
        clips = (source / "splits" / f"{split}.txt").read_text().split()
        (lists / f"{split}.txt").write_text(clips[-1])
    options = ImportOptions(videos=source / "videos", split=f"by-list:{lists}", link=True)
    import_fl_drones(source / "annotations_fl", tmp_path / "texts", options)
    import_coco_video(
        source / "coco_vid", tmp_path / "json", ImportOptions(split=f"by-list:{lists}", link=True)
    )
    for split in ("train", "test"):
        texts, rows = _load(tmp_path / "texts", split), _load(tmp_path / "json", split)
        assert len(texts.videos) == 1
        for video in texts.videos:
            assert rows.video_by_name[video.name].num_frames == video.num_frames
            assert texts.frame_ids(video.name) == rows.frame_ids(video.name) == list(range(video.num_frames))
            for frame in texts.frame_ids(video.name):
                expected, found = texts.boxes(video.name, frame)[0], rows.boxes(video.name, frame)[0]
                assert expected.shape == found.shape
                assert np.abs(expected - found).max(initial=0) <= 0.51
