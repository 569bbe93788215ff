from __future__ import annotations

from pathlib import Path

from lstfe.data.coco_video import load_annotations
from lstfe.data.raw import RawObject, RawVideo, place_video, write_annotations
from lstfe.data.video import VideoInfo


def _video(name: str, splits: dict[str, range], instances: list[int]) -> RawVideo:
    objects = [RawObject(frame, (1, 2, 3, 4), 1, instance) for frame, instance in enumerate(instances)]
    return RawVideo(name, Path(f"{name}.avi"), VideoInfo(96, 64, 10, 25.0), objects, splits)


def test_no_videos_give_a_report_and_no_splits(tmp_path: Path) -> None:
    report = write_annotations(tmp_path, [], ["drone"], {"format": "none"})
    assert report == {"format": "none", "splits": {}, "videos": {}}
    assert list((tmp_path / "annotations").iterdir()) == []


def test_splits_of_an_earlier_import_vanish(tmp_path: Path) -> None:
    write_annotations(tmp_path, [_video("a", {"val": range(10)}, [])], ["drone"], {})
    write_annotations(tmp_path, [_video("a", {"train": range(10)}, [])], ["drone"], {})
    assert [path.name for path in (tmp_path / "annotations").iterdir()] == ["train.json"]


def test_instances_are_unique_across_the_videos_of_a_split(tmp_path: Path) -> None:
    videos = [_video("a", {"train": range(10)}, [0, 0, 3]), _video("b", {"train": range(10)}, [0, 1])]
    write_annotations(tmp_path, videos, ["drone"], {})
    annotations = load_annotations(tmp_path / "annotations" / "train.json")
    assert [item.instance_id for item in annotations.annotations] == [1, 1, 2, 3, 4]
    assert [item.image_id for item in annotations.annotations] == [1, 2, 3, 11, 12]
    assert annotations.videos[1].file_name == "videos/b.avi"


def test_placing_a_video_where_it_lies_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"film")
    place_video(path, tmp_path, link=False)
    assert path.read_bytes() == b"film"
