from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lstfe.data.coco_video import VideoAnnotations, load_annotations
from lstfe.data.faults import AnnotationError
from lstfe.data.footage import read_footage
from lstfe.data.importers.mot import import_mot
from lstfe.data.raw import ImportOptions
from lstfe.data.video import VideoError

NONE = ImportOptions(split="none")
ALONE = ImportOptions(split="none", annotations_only=True)
SEQINFO = (
    "[Sequence]\nname={name}\nimDir=img1\nframeRate=25\nseqLength=5\nimWidth=96\nimHeight=64\nimExt=.jpg\n\n"
)
# frame, track, left, top, width, height, flag, class, visibility; all from 1
GT = (
    "1,1,11,21,30,20,1,1,1\n2,1,12,21,30,20,1,1,0.5\n1,2,1,1,10,10,1,1,1\n"
    "1,3,5,5,9,9,0,1,1\n1,4,5,5,9,9,1,7,1\n"
)


@pytest.fixture
def source(tmp_path: Path, write_pictures: Callable[[Path, Sequence[str]], None]) -> Path:
    """Three sequences as MOT17 has them, in train/, and one without ground truth in test/."""
    root = tmp_path / "MOT17"
    for name in ("MOT17-02-FRCNN", "MOT17-04-FRCNN", "MOT17-05-FRCNN"):
        folder = root / "train" / name
        write_pictures(folder / "img1", [f"{number:06d}.jpg" for number in range(1, 6)])
        (folder / "gt").mkdir()
        (folder / "gt" / "gt.txt").write_text(GT)
        (folder / "seqinfo.ini").write_text(SEQINFO.format(name=name))
    write_pictures(root / "test" / "MOT17-01-FRCNN" / "img1", ["000001.jpg"])
    return root


def _load(raw: Path, split: str = "all") -> VideoAnnotations:
    return load_annotations(raw / "annotations" / f"{split}.json")


def test_an_empty_ground_truth_is_a_sequence_without_objects(source: Path, tmp_path: Path) -> None:
    (source / "train" / "MOT17-02-FRCNN" / "gt" / "gt.txt").write_text("")
    report = import_mot(source, tmp_path / "raw", NONE)
    assert report["videos"]["MOT17-02-FRCNN"]["boxes"] == 0


def test_three_sequences_come_over_with_their_pictures(source: Path, tmp_path: Path) -> None:
    report = import_mot(source, tmp_path / "raw", NONE)
    annotations = _load(tmp_path / "raw")
    assert [video.name for video in annotations.videos] == [f"MOT17-0{n}-FRCNN" for n in (2, 4, 5)]
    for video in annotations.videos:
        assert (video.width, video.height, video.num_frames, video.frame_rate) == (96, 64, 5, 25)
        assert annotations.frame_ids(video.name) == [0, 1, 2, 3, 4]
        assert annotations.boxes(video.name, 0)[0].tolist() == [[10, 20, 40, 40], [0, 0, 10, 10]]
        assert annotations.boxes(video.name, 1)[0].tolist() == [[11, 20, 41, 40]]
        assert len(list(read_footage(tmp_path / "raw" / video.file_name))) == 5
    assert [item.instance_id for item in annotations.annotations] == [1, 2, 1, 3, 4, 3, 5, 6, 5]
    assert annotations.label_names == ["pedestrian"]
    assert (report["boxes_ignored"], report["boxes_of_other_categories"]) == (3, 3)


def test_one_sequence_alone_is_a_source(source: Path, tmp_path: Path) -> None:
    import_mot(source / "train" / "MOT17-04-FRCNN", tmp_path / "raw", NONE)
    assert [video.name for video in _load(tmp_path / "raw").videos] == ["MOT17-04-FRCNN"]


def test_a_sequence_that_is_there_for_three_detectors_is_taken_once(source: Path, tmp_path: Path) -> None:
    train = source / "train"
    for detector in ("DPM", "SDP"):
        shutil.copytree(train / "MOT17-02-FRCNN", train / f"MOT17-02-{detector}")
    report = import_mot(source, tmp_path / "raw", NONE)
    assert [name[:8] for name in report["videos"]] == ["MOT17-02", "MOT17-04", "MOT17-05"]


def test_labels_name_the_classes_and_all_of_them_count(source: Path, tmp_path: Path) -> None:
    gt = source / "train" / "MOT17-02-FRCNN" / "gt"
    (gt / "labels.txt").write_text("drone\nbird\n")
    (gt / "gt.txt").write_text("1,1,1,1,9,9,1,2,1\n1,2,1,1,9,9,1,1,1\n")
    report = import_mot(source / "train" / "MOT17-02-FRCNN", tmp_path / "raw", NONE)
    assert _load(tmp_path / "raw").label_names == ["bird", "drone"]
    assert report["boxes_of_other_categories"] == 0
    (gt / "gt.txt").write_text("1,1,1,1,9,9,1,3,1\n")
    with pytest.raises(AnnotationError, match=r"gt\.txt:1: found '3', expected a class from 1 to 2"):
        import_mot(source / "train" / "MOT17-02-FRCNN", tmp_path / "other", NONE)


def test_objects_without_a_class_are_named_by_the_user_and_without_a_track_associated(tmp_path: Path) -> None:
    gt = tmp_path / "mine" / "gt"
    gt.mkdir(parents=True)
    (gt / "gt.txt").write_text(
        "1,-1,1,1,9,9,1,-8.5,3.5,0\n2,-1,2,1,9,9,1,-8.4,3.5,0\n2,-1,60,40,9,9,1,1,1,1\n"
    )
    options = ImportOptions(split="none", annotations_only=True, category="ship")
    import_mot(tmp_path / "mine", tmp_path / "raw", options)
    annotations = _load(tmp_path / "raw")
    assert annotations.label_names == ["ship"]
    assert [item.instance_id for item in annotations.annotations] == [1, 1, 2]
    assert (annotations.videos[0].width, annotations.videos[0].num_frames) == (0, 2)


def test_a_video_may_stand_in_for_the_pictures(
    source: Path, tmp_path: Path, write_video: Callable[[Path, int], None]
) -> None:
    write_video(tmp_path / "films" / "MOT17-02-FRCNN.mp4", 5)
    options = ImportOptions(split="none", videos=tmp_path / "films")
    import_mot(source / "train" / "MOT17-02-FRCNN", tmp_path / "raw", options)
    assert _load(tmp_path / "raw").videos[0].file_name == "videos/MOT17-02-FRCNN.mp4"


def test_sizes_and_lengths_must_be_those_of_the_pictures(source: Path, tmp_path: Path) -> None:
    folder = source / "train" / "MOT17-02-FRCNN"
    (folder / "seqinfo.ini").write_text(SEQINFO.format(name="x").replace("imWidth=96", "imWidth=192"))
    with pytest.raises(AnnotationError, match=r"found 5 frames of 192x64 pixels, expected 5 of 96x64 as in"):
        import_mot(folder, tmp_path / "raw", NONE)
    (folder / "seqinfo.ini").unlink()
    (folder / "gt" / "gt.txt").write_text("5,1,1,1,9,9,1,1,1\n6,1,1,1,9,9,1,1,1\n")
    with pytest.raises(AnnotationError, match=r"gt\.txt:2: frame 5 is past the end of MOT17-02-FRCNN"):
        import_mot(folder, tmp_path / "raw", NONE)
    shutil.rmtree(folder / "img1")
    with pytest.raises(VideoError, match="no such video"):
        import_mot(folder, tmp_path / "raw", NONE)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1,1,1,9", r"gt\.txt:1: found '1,1,1,1,9', expected 7 to 10 fields"),
        ("0,1,1,1,9,9,1", r"gt\.txt:1: found '0', expected frame"),
        ("1,1,a,1,9,9,1", r"gt\.txt:1: found 'a', expected left and top"),
        ("1,1,1,1,9,9,1,13,1", r"gt\.txt:1: found '13', expected a class from 1 to 12 as in MOT17"),
        ("1,1,1,1,9,9,1\n1,1,2,2,9,9,1", r"gt\.txt:2: found .*, expected track 1 once in frame 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    gt = tmp_path / "mine" / "gt"
    gt.mkdir(parents=True)
    (gt / "gt.txt").write_text(line)
    with pytest.raises(AnnotationError, match=message):
        import_mot(tmp_path / "mine", tmp_path / "raw", ALONE)


def test_a_source_without_sequences_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"holds no sequence, expected SEQUENCE/gt/gt\.txt"):
        import_mot(tmp_path, tmp_path / "raw", NONE)


def test_malformed_sequences_are_refused_by_file_and_line(refuse_malformed: Callable[..., None]) -> None:
    files = {}
    for name in "abc":
        files[f"{name}/gt/gt.txt"] = GT.encode()
        files[f"{name}/seqinfo.ini"] = SEQINFO.format(name=name).encode()
    refuse_malformed(import_mot, files, ["b/gt/gt.txt", "b/seqinfo.ini"])
