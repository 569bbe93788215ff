from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lstfe.data.coco_video import VideoAnnotations, load_annotations
from lstfe.data.faults import AnnotationError
from lstfe.data.folders import FolderError
from lstfe.data.importers.fl_drones import import_fl_drones, read_fl_drones
from lstfe.data.raw import ImportOptions
from lstfe.data.video import VideoError, VideoWriter

MakeSource = Callable[..., Path]
RefuseMalformed = Callable[..., None]
SHARED = os.environ.get("LSTFE_SHARED", "")


def _write_video(path: Path, num_frames: int) -> None:
    with VideoWriter(path, 30, (64, 96)) as video:
        for index in range(num_frames):
            video.write(np.full((64, 96, 3), 10 * index, np.uint8))


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    """A function that writes a source folder: texts by video name, and 10 frames of video for each."""

    def make(texts: dict[str, str], folder: str = "fl_drones", num_frames: int = 10) -> Path:
        source = tmp_path / "source"
        for name in ("videos", folder):
            (source / name).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (source / folder / f"{name}.txt").write_text(text, encoding="utf-8")
            _write_video(source / "videos" / f"{name}.mp4", num_frames)
        return source

    return make


def _load(raw: Path, split: str = "all") -> VideoAnnotations:
    return load_annotations(raw / "annotations" / f"{split}.json")


def test_an_empty_text_is_a_video_without_objects(make_source: MakeSource, tmp_path: Path) -> None:
    report = import_fl_drones(make_source({"a": ""}), tmp_path / "raw", ImportOptions(split="none"))
    annotations = _load(tmp_path / "raw")
    assert (len(annotations.images), annotations.annotations) == (10, [])
    assert report["splits"] == {"all": {"videos": 1, "frames": 10, "boxes": 0}}


def test_lines_become_boxes_of_their_frames(make_source: MakeSource, tmp_path: Path) -> None:
    text = "2,1,10,20,30,40\n3, 2, 11,20,31,40 , 50,50,60,60\r\n\n9,0\n"
    import_fl_drones(make_source({"a": text}), tmp_path / "raw", ImportOptions(split="none"))
    annotations = _load(tmp_path / "raw")
    assert annotations.frame_ids("a") == list(range(10))
    assert not annotations.corner_pixels_inside
    assert annotations.boxes("a", 2)[0].tolist() == [[10, 20, 30, 40]]
    assert annotations.boxes("a", 3)[0].tolist() == [[11, 20, 31, 40], [50, 50, 60, 60]]
    assert [len(annotations.objects("a", i)) for i in (0, 4, 9)] == [0, 0, 0]
    assert [item.instance_id for item in annotations.annotations] == [1, 1, 2]
    assert annotations.label_names == ["drone"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2,2,10,20,30,40\n", r"a\.txt:1: found 4 coordinates, expected 8 because .* n = 2"),
        ("1,1,1,1,2,2\n2,1,10,20,30\n", r"a\.txt:2: found 3 coordinates, expected 4"),
        ("2\n", r"a\.txt:1: found '2', expected frame,n,x1"),
        ("2,1,10,20,30,4.5\n", r"a\.txt:1: found '4\.5', expected .* integers"),
        ("two,1,10,20,30,40\n", r"a\.txt:1: found 'two'"),
        ("-1,1,10,20,30,40\n", r"a\.txt:1: found '-1', expected frame .* an integer from 0"),
        ("3,1,1,1,2,2\n3,1,1,1,2,2\n", r"a\.txt:2: frame 3 follows frame 3, expected .* ascending"),
        ("3,1,1,1,2,2\n2,1,1,1,2,2\n", r"a\.txt:2: frame 2 follows frame 3"),
        ("10,1,1,1,2,2\n", r"a\.txt:1: frame 10 is past the end of a\.mp4, expected less than its 10 frames"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_written(
    make_source: MakeSource, tmp_path: Path, text: str, message: str
) -> None:
    source = make_source({"a": text})
    with pytest.raises(AnnotationError, match=message):
        import_fl_drones(source, tmp_path / "raw", ImportOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_text_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnnotationError, match=r"a\.txt:1: not readable as text"):
        read_fl_drones(tmp_path / "a.txt")


def test_boxes_outside_the_frame_are_clipped_or_dropped_and_counted(
    make_source: MakeSource, tmp_path: Path
) -> None:
    text = "0,1,-8,-2,12,10\n1,1,90,60,110,70\n2,2,96,0,120,10,5,5,5,9\n3,1,1,1,5,5\n"
    report = import_fl_drones(make_source({"a": text}), tmp_path / "raw", ImportOptions(split="none"))
    annotations = _load(tmp_path / "raw")
    assert [item.bbox for item in annotations.annotations] == [(0, 0, 12, 10), (90, 60, 6, 4), (1, 1, 4, 4)]
    for counts in (report, report["videos"]["a"]):
        assert (counts["boxes_clipped"], counts["boxes_dropped"]) == (2, 2)
    assert json.loads((tmp_path / "raw" / "report.json").read_text()) == report


def test_half_gives_the_first_half_to_training_and_the_rest_to_the_test(
    make_source: MakeSource, tmp_path: Path
) -> None:
    source = make_source({"a": "4,1,1,1,9,9\n5,1,1,1,9,9\n"}, num_frames=11)
    import_fl_drones(source, tmp_path / "raw", ImportOptions(split="half"))
    train, test = (_load(tmp_path / "raw", split) for split in ("train", "test"))
    assert train.frame_ids("a") == [0, 1, 2, 3, 4]
    assert test.frame_ids("a") == [5, 6, 7, 8, 9, 10]
    assert (len(train.annotations), len(test.annotations)) == (1, 1)
    assert train.videos[0].num_frames == test.videos[0].num_frames == 11
    assert not (tmp_path / "raw" / "annotations" / "val.json").exists()


def test_half_of_a_one_frame_video_is_its_test(make_source: MakeSource, tmp_path: Path) -> None:
    report = import_fl_drones(
        make_source({"a": "0,1,1,1,9,9\n"}, num_frames=1), tmp_path / "raw", ImportOptions(split="half")
    )
    assert report["splits"] == {"test": {"videos": 1, "frames": 1, "boxes": 1}}


def test_auto_takes_the_lists_of_the_source(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source({"a": "", "b": "", "c": ""})
    (source / "splits").mkdir()
    (source / "splits" / "train.txt").write_text("b\na\n")
    (source / "splits" / "test.txt").write_text("c\n")
    import_fl_drones(source, tmp_path / "raw", ImportOptions())
    assert [video.name for video in _load(tmp_path / "raw", "train").videos] == ["b", "a"]
    assert [video.name for video in _load(tmp_path / "raw", "test").videos] == ["c"]


def test_lists_may_lie_elsewhere(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source({"a": "", "b": ""})
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "val.txt").write_text("b")
    report = import_fl_drones(source, tmp_path / "raw", ImportOptions(split=f"by-list:{tmp_path / 'lists'}"))
    assert list(report["splits"]) == ["val"]


def test_lists_that_cannot_be_followed_are_named(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source({"a": ""})
    lists = tmp_path / "lists"
    lists.mkdir()
    with pytest.raises(AnnotationError, match="lists no video"):
        import_fl_drones(source, tmp_path / "raw", ImportOptions(split=f"by-list:{lists}"))
    (lists / "train.txt").write_text("a\nb\n")
    with pytest.raises(AnnotationError, match=r"train\.txt:2: no video b in the source"):
        import_fl_drones(source, tmp_path / "raw", ImportOptions(split=f"by-list:{lists}"))
    (lists / "train.txt").write_text("a\n")
    (lists / "test.txt").write_text("a\n")
    with pytest.raises(AnnotationError, match=r"test\.txt:1: video a is listed already in train\.txt"):
        import_fl_drones(source, tmp_path / "raw", ImportOptions(split=f"by-list:{lists}"))
    with pytest.raises(AnnotationError, match="split 'thirds' is unknown, expected auto"):
        import_fl_drones(source, tmp_path / "raw", ImportOptions(split="thirds"))


def test_missing_and_corrupt_videos_are_named(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source({"a": ""})
    video = source / "videos" / "a.mp4"
    video.write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be decoded"):
        import_fl_drones(source, tmp_path / "raw", ImportOptions())
    video.unlink()
    with pytest.raises(VideoError, match=r"videos/a: no such video"):
        import_fl_drones(source, tmp_path / "raw", ImportOptions())
    for suffix in (".avi", ".mkv"):
        video.with_suffix(suffix).touch()
    with pytest.raises(VideoError, match=r"a is there as a\.avi and a\.mkv"):
        import_fl_drones(source, tmp_path / "raw", ImportOptions())
    assert not (tmp_path / "raw").exists()


def test_a_source_without_texts_or_videos_is_named(make_source: MakeSource, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="no such folder"):
        import_fl_drones(tmp_path / "nowhere", tmp_path / "raw", ImportOptions())
    with pytest.raises(
        AnnotationError, match=r"holds no annotation texts, expected \*\.txt there or in fl_dr"
    ):
        import_fl_drones(make_source({}), tmp_path / "raw", ImportOptions())
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "a.txt").touch()
    with pytest.raises(AnnotationError, match="name it with --videos DIR"):
        import_fl_drones(tmp_path / "loose", tmp_path / "raw", ImportOptions())


def test_loose_texts_go_with_a_folder_of_videos(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source({"a": "1,1,1,1,5,5\n"})
    report = import_fl_drones(
        source / "fl_drones",
        tmp_path / "raw",
        ImportOptions(videos=source / "videos", split="none", category="ship"),
    )
    assert report["videos"]["a"]["boxes"] == 1
    assert _load(tmp_path / "raw").label_names == ["ship"]


def test_texts_of_drones_alone_come_before_texts_of_everything(
    make_source: MakeSource, tmp_path: Path
) -> None:
    make_source({"a": "1,1,1,1,5,5\n2,1,1,1,5,5\n"}, folder="annotations_fl")
    source = make_source({"a": "1,1,1,1,5,5\n"}, folder="annotations_fl_drone")
    assert import_fl_drones(source, tmp_path / "raw", ImportOptions())["videos"]["a"]["boxes"] == 1
    videos = ImportOptions(videos=source / "videos")
    everything = import_fl_drones(source / "annotations_fl", tmp_path / "all", videos)
    assert everything["videos"]["a"]["boxes"] == 2


@pytest.mark.parametrize("link", [False, True])
def test_videos_are_copied_or_hard_linked(make_source: MakeSource, tmp_path: Path, link: bool) -> None:
    source = make_source({"a": ""})
    import_fl_drones(source, tmp_path / "raw", ImportOptions(link=link))
    original, placed = source / "videos" / "a.mp4", tmp_path / "raw" / "videos" / "a.mp4"
    assert placed.read_bytes() == original.read_bytes()
    assert placed.samefile(original) == link


def test_importing_in_place_writes_annotations_only(make_source: MakeSource) -> None:
    source = make_source({"a": "1,1,1,1,5,5\n"})
    import_fl_drones(source, source, ImportOptions(split="none"))
    assert sorted(path.name for path in source.iterdir()) == [
        "annotations",
        "fl_drones",
        "report.json",
        "videos",
    ]
    assert len(_load(source).annotations) == 1


def test_annotations_alone_need_no_videos_and_clip_what_is_surely_outside(
    make_source: MakeSource, tmp_path: Path
) -> None:
    texts = make_source({"a": "1,1,-3,2,900,9\n4,1,-9,-9,-1,-1\n", "b": ""}) / "fl_drones"
    options = ImportOptions(split="none", annotations_only=True)
    report = import_fl_drones(texts, tmp_path / "raw", options)
    assert report["annotations_only"]
    assert (report["boxes_clipped"], report["boxes_dropped"]) == (1, 1)
    assert (report["videos"]["a"]["frames"], report["videos"]["a"]["image_size"]) == (5, [0, 0])
    annotations = _load(tmp_path / "raw")
    assert [item.bbox for item in annotations.annotations] == [(0, 2, 900, 7)]
    assert list((tmp_path / "raw" / "videos").iterdir()) == []
    sized = ImportOptions(split="none", annotations_only=True, image_size=(64, 96))
    import_fl_drones(texts, tmp_path / "sized", sized)
    assert _load(tmp_path / "sized").annotations[0].bbox == (0, 2, 96, 7)


@pytest.mark.skipif(not SHARED, reason="LSTFE_SHARED is not set")
def test_the_real_annotation_files_of_fl_drones_import_whole(tmp_path: Path) -> None:
    texts = Path(SHARED) / "data" / "fl-drones-annotations" / "annotations"
    boxes = [box for path in texts.glob("*.txt") for line in read_fl_drones(path) for box in line.boxes]
    assert np.mean([x2 - x1 for x1, _, x2, _ in boxes]) == pytest.approx(25.7, abs=0.1)
    assert np.mean([y2 - y1 for _, y1, _, y2 in boxes]) == pytest.approx(16.4, abs=0.1)
    report = import_fl_drones(texts, tmp_path / "raw", ImportOptions(annotations_only=True))
    videos = report["videos"].values()
    assert (len(videos), sum(video["frames_with_objects"] for video in videos)) == (14, 20_017)
    assert sum(video["boxes"] for video in videos) == len(boxes) == 20_893
    assert sum(counts["boxes"] for counts in report["splits"].values()) == 20_893
    assert (report["boxes_clipped"], report["boxes_dropped"]) == (70, 0)
    loaded = [_load(tmp_path / "raw", split) for split in ("train", "test")]
    assert min(min(item.bbox[:2]) for part in loaded for item in part.annotations) == 0


def test_malformed_texts_are_refused_by_file_and_line(refuse_malformed: RefuseMalformed) -> None:
    texts = {f"{name}.txt": b"0,1,1,2,13,14\n3,2,1,2,3,4, 5,6,7,8\n4,1,1,2,9,9\n" for name in "abc"}
    refuse_malformed(import_fl_drones, texts, ["b.txt"])


def test_an_existing_data_set_is_not_overwritten(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source({"a": ""})
    import_fl_drones(source, tmp_path / "raw", ImportOptions())
    with pytest.raises(FolderError, match="raw: exists already"):
        import_fl_drones(source, tmp_path / "raw", ImportOptions())
