from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lstfe.config import PrepareConfig
from lstfe.data.coco_video import load_annotations
from lstfe.data.faults import AnnotationError
from lstfe.data.footage import read_footage
from lstfe.data.frames import FrameStore
from lstfe.data.prepare import prepare_data_set
from lstfe.data.video import VideoError, VideoWriter


@pytest.fixture
def raw(tiny_raw: Path, tmp_path: Path) -> Path:
    """A copy of the tiny data set that a test may damage."""
    return Path(shutil.copytree(tiny_raw, tmp_path / "raw"))


def _edit(raw: Path, split: str, **changes: Any) -> None:
    path = raw / "annotations" / f"{split}.json"
    content = json.loads(path.read_text())
    for key, change in changes.items():
        change(content[key])
    path.write_text(json.dumps(content))


def _write_grey_video(path: Path, num_frames: int, image_size: tuple[int, int] = (64, 96)) -> None:
    with VideoWriter(path, 30, image_size) as video:
        for _ in range(num_frames):
            video.write(np.full((*image_size, 3), 90, np.uint8))


def test_every_frame_is_stored_with_or_without_objects(tiny_raw: Path, tiny_prepared: Path) -> None:
    report = json.loads((tiny_prepared / "report.json").read_text())
    assert sorted(report["splits"]) == ["test", "train", "val"]
    for split, counts in report["splits"].items():
        received = load_annotations(tiny_raw / "annotations" / f"{split}.json")
        assert load_annotations(tiny_prepared / "annotations" / f"{split}.json") == received
        assert counts["frames"] == 16 * len(received.videos)
        assert counts["boxes"] == sum(counts["boxes_by_size_px"].values()) == len(received.annotations) > 0
        assert 0 < counts["frames_without_objects"] < counts["frames"]
        for video in received.videos:
            assert FrameStore(tiny_prepared / "frames").frame_ids(video.name) == list(range(16))


def test_frame_stride_keeps_every_nth_frame_with_its_number(tiny_raw: Path, tmp_path: Path) -> None:
    prepare_data_set(tiny_raw, tmp_path / "out", PrepareConfig(frame_stride=5))
    received = load_annotations(tiny_raw / "annotations" / "val.json")
    annotations = load_annotations(tmp_path / "out" / "annotations" / "val.json")
    name = annotations.videos[0].name
    assert annotations.frame_ids(name) == FrameStore(tmp_path / "out" / "frames").frame_ids(name)
    assert annotations.frame_ids(name) == [0, 5, 10, 15]
    for index in (0, 5, 10, 15):
        assert np.array_equal(annotations.boxes(name, index)[0], received.boxes(name, index)[0])


def test_prepared_annotations_still_say_that_corner_pixels_are_inside(raw: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        path = raw / "annotations" / f"{split}.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({"info": {"corner_pixels_inside": split != "val"}, **content}))
    for stride in (1, 5):
        out = tmp_path / f"out_{stride}"
        prepare_data_set(raw, out, PrepareConfig(frame_stride=stride))
        splits = {
            split: load_annotations(out / "annotations" / f"{split}.json").corner_pixels_inside
            for split in ("train", "val", "test")
        }
        assert splits == {"train": True, "val": False, "test": True}


@pytest.mark.parametrize(
    ("stride", "named", "kept"),
    [
        (1, [], ()),
        (1, [7, 3], (3, 7)),
        (5, [0, 1, 7, 8, 13], (0, 5, 10, 15)),
        (5, [2], (0,)),
        (5, [3, 6], (5,)),
    ],
)
def test_the_nearest_frame_left_stands_in_for_a_named_one(
    raw: Path, tmp_path: Path, stride: int, named: list[int], kept: tuple[int, ...]
) -> None:
    _edit(raw, "val", videos=lambda rows: rows[0].update(vid_train_frames=named))
    prepare_data_set(raw, tmp_path / "out", PrepareConfig(frame_stride=stride))
    annotations = load_annotations(tmp_path / "out" / "annotations" / "val.json")
    assert annotations.videos[0].vid_train_frames == kept
    assert set(kept) <= set(annotations.frame_ids(annotations.videos[0].name))


def test_named_frames_of_another_split_name_none_here(raw: Path, tmp_path: Path) -> None:
    def leave_half(rows: list[dict[str, Any]]) -> None:
        rows[:] = [row for row in rows if row["frame_id"] < 8]

    _edit(
        raw,
        "val",
        videos=lambda rows: rows[0].update(vid_train_frames=[7, 8]),
        images=leave_half,
        annotations=list.clear,
    )
    prepare_data_set(raw, tmp_path / "out", PrepareConfig())
    assert load_annotations(tmp_path / "out" / "annotations" / "val.json").videos[0].vid_train_frames == (7,)


def test_boxes_are_counted_by_the_root_of_their_area(raw: Path, tmp_path: Path) -> None:
    def resize(rows: list[dict[str, Any]]) -> None:
        del rows[3:]
        for row, bbox in zip(rows, ([0, 0, 7, 9], [0, 0, 8, 8], [0, 0, 64, 64]), strict=True):
            row["bbox"] = bbox

    _edit(raw, "val", annotations=resize)
    counts = prepare_data_set(raw, tmp_path / "out", PrepareConfig())["splits"]["val"]
    assert counts["boxes_by_size_px"] == {"0-8": 1, "8-16": 1, "16-32": 0, "32-96": 1, "96-": 0}


def test_progress_is_reported_after_each_video(tiny_raw: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    prepare_data_set(
        tiny_raw, tmp_path / "out", PrepareConfig(), report_progress=lambda *call: calls.append(call)
    )
    assert calls == [(n, 4, f"Video_{n:03d}") for n in (1, 2, 3, 4)]


def test_a_video_without_any_object_is_prepared(raw: Path, tmp_path: Path) -> None:
    _edit(raw, "train", annotations=lambda rows: rows.clear())
    report = prepare_data_set(raw, tmp_path / "out", PrepareConfig())
    assert report["splits"]["train"]["share_without_objects"] == 1.0
    assert set(report["splits"]["train"]["boxes_by_size_px"].values()) == {0}


def test_a_one_frame_video_is_prepared(raw: Path, tmp_path: Path) -> None:
    _write_grey_video(raw / "videos" / "Video_003.mp4", 1)
    _edit(
        raw,
        "val",
        videos=lambda rows: rows[0].update(num_frames=1),
        images=lambda rows: rows.__setitem__(slice(1, None), []),
        annotations=lambda rows: rows.clear(),
    )
    report = prepare_data_set(raw, tmp_path / "out", PrepareConfig())
    assert report["splits"]["val"]["frames"] == 1
    assert FrameStore(tmp_path / "out" / "frames").read("Video_003", 0).shape == (64, 96, 3)


def test_boxes_outside_the_frame_are_clipped_or_dropped_and_counted(raw: Path, tmp_path: Path) -> None:
    def move(rows: list[dict[str, Any]]) -> None:
        rows[0]["bbox"] = [-4, 60, 20, 20]
        rows[1]["bbox"] = [96, 10, 5, 5]

    _edit(raw, "val", annotations=move)
    received = len(load_annotations(raw / "annotations" / "val.json").annotations)
    counts = prepare_data_set(raw, tmp_path / "out", PrepareConfig())["splits"]["val"]
    assert (counts["boxes_clipped"], counts["boxes_dropped"], counts["boxes"]) == (1, 1, received - 1)
    assert counts["videos"]["Video_003"]["boxes_clipped"] == 1
    clipped = load_annotations(tmp_path / "out" / "annotations" / "val.json").annotations[0]
    assert clipped.bbox == (0, 60, 16, 4)


def test_a_video_shared_by_two_splits_is_stored_once(raw: Path, tmp_path: Path) -> None:
    train = json.loads((raw / "annotations" / "train.json").read_text())
    first, second = (
        {**train, "images": [i for i in train["images"] if i["frame_id"] in frames], "annotations": []}
        for frames in (range(8), range(8, 16))
    )
    for split, content in (("train", first), ("val", second)):
        (raw / "annotations" / f"{split}.json").write_text(json.dumps(content))
    prepare_data_set(raw, tmp_path / "out", PrepareConfig())
    assert FrameStore(tmp_path / "out" / "frames").frame_ids("Video_001") == list(range(16))
    kept = load_annotations(tmp_path / "out" / "annotations" / "val.json")
    assert kept.frame_ids("Video_001") == list(range(8, 16))


def test_a_folder_of_pictures_is_prepared_as_a_video_is(raw: Path, tmp_path: Path) -> None:
    video = raw / "videos" / "Video_003.mp4"
    frames = list(read_footage(video))
    folder = raw / "videos" / "Video_003"
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index}.png")
    video.unlink()
    _edit(raw, "val", videos=lambda rows: rows[0].update(file_name="videos/Video_003"))
    prepare_data_set(raw, tmp_path / "out", PrepareConfig())
    store = FrameStore(tmp_path / "out" / "frames")
    assert store.frame_ids("Video_003") == list(range(16))
    for index, frame in enumerate(frames):
        assert np.abs(store.read("Video_003", index).astype(int) - frame).mean() < 3


def test_a_data_set_without_a_split_becomes_training_data(raw: Path, tmp_path: Path) -> None:
    annotations = raw / "annotations"
    (annotations / "val.json").replace(annotations / "all.json")
    for split in ("train", "test"):
        (annotations / f"{split}.json").unlink()
    report = prepare_data_set(raw, tmp_path / "out", PrepareConfig())
    assert list(report["splits"]) == ["train"]
    assert [path.name for path in (tmp_path / "out" / "annotations").iterdir()] == ["train.json"]
    assert [path.stem for path in (tmp_path / "out" / "frames").iterdir()] == ["Video_003"]


def test_a_missing_video_is_named_and_nothing_is_written(raw: Path, tmp_path: Path) -> None:
    (raw / "videos" / "Video_002.mp4").unlink()
    with pytest.raises(VideoError, match=r"Video_002\.mp4: no such video file"):
        prepare_data_set(raw, tmp_path / "out", PrepareConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_corrupt_video_is_named_in_one_line(raw: Path, tmp_path: Path) -> None:
    path = raw / "videos" / "Video_002.mp4"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(VideoError, match=r"Video_002\.mp4: ") as caught:
        prepare_data_set(raw, tmp_path / "out", PrepareConfig())
    assert "\n" not in str(caught.value)


def test_a_video_shorter_than_its_annotations_is_named(raw: Path, tmp_path: Path) -> None:
    _write_grey_video(raw / "videos" / "Video_001.mp4", 5)
    with pytest.raises(VideoError, match=r"Video_001\.mp4: ends after 5 frames, but frame 15 is annotated"):
        prepare_data_set(raw, tmp_path / "out", PrepareConfig())


def test_a_video_of_another_size_than_annotated_is_named(raw: Path, tmp_path: Path) -> None:
    _write_grey_video(raw / "videos" / "Video_001.mp4", 16, (48, 64))
    with pytest.raises(VideoError, match=r"frame 0 is 64x48 pixels, expected 96x64 as annotated"):
        prepare_data_set(raw, tmp_path / "out", PrepareConfig())


def test_splits_must_agree_on_the_categories(raw: Path, tmp_path: Path) -> None:
    _edit(raw, "test", categories=lambda rows: rows[0].update(name="bird"))
    with pytest.raises(AnnotationError, match=r"test\.json: categories \['bird'\], expected \['drone'\]"):
        prepare_data_set(raw, tmp_path / "out", PrepareConfig())


def test_a_raw_folder_without_annotations_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        AnnotationError, match=r"holds none of train.json, val.json, test.json, all.json; render or import"
    ):
        prepare_data_set(tmp_path, tmp_path / "out", PrepareConfig())


def test_preparing_again_replaces_the_data_set_and_gives_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before, after = (
        (prepare_data_set(raw, out, PrepareConfig()), (out / "frames" / "Video_001.zip").read_bytes())
        for _ in range(2)
    )
    assert before == after
