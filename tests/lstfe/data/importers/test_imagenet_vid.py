from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lstfe.data.coco_video import VideoAnnotations, load_annotations
from lstfe.data.faults import AnnotationError
from lstfe.data.footage import read_footage
from lstfe.data.importers.imagenet_vid import CLASSES, import_imagenet_vid
from lstfe.data.raw import ImportOptions

AUTO = ImportOptions()
ALONE = ImportOptions(annotations_only=True)
TRAIN = "train/ILSVRC2015_VID_train_0000/ILSVRC2015_train_00000000"
VALS = ("val/ILSVRC2015_val_00000000", "val/ILSVRC2015_val_00000001")
IMAGE = "train/ILSVRC2013_train/n02419796/n02419796_7993"


def _xml(*objects: tuple[str, int, int, int, int], track: int | None = 0) -> str:
    rows = ""
    for place, (name, xmin, ymin, xmax, ymax) in enumerate(objects):
        trackid = "" if track is None else f"<trackid>{track + place}</trackid>"
        flags = "" if track is None else "<occluded>1</occluded><generated>0</generated>"
        rows += f"""
\t<object>
\t\t{trackid}<name>{name}</name>
\t\t<bndbox><xmax>{xmax}</xmax><xmin>{xmin}</xmin><ymax>{ymax}</ymax><ymin>{ymin}</ymin></bndbox>
\t\t{flags}
\t</object>"""
    return f"""<annotation>
\t<folder>ILSVRC2015_VID_train_0000</folder>
\t<filename>000000</filename>
\t<source><database>ILSVRC_2015</database></source>
\t<size><width>96</width><height>64</height></size>{rows}
</annotation>
"""


@pytest.fixture
def source(tmp_path: Path, write_pictures: Callable[[Path, Sequence[str]], None]) -> Path:
    """One training and two validation videos of 4 frames, one image of DET; without lists."""
    root = tmp_path / "ILSVRC2015"
    for video in (TRAIN, *VALS):
        write_pictures(root / "Data" / "VID" / video, [f"{frame:06d}.JPEG" for frame in range(4)])
        folder = root / "Annotations" / "VID" / video
        folder.mkdir(parents=True)
        for frame in range(4):
            objects = [("n02691156", frame, 1, frame + 9, 20), ("n01503061", 50, 30, 95, 63)]
            (folder / f"{frame:06d}.xml").write_text(_xml(*objects[: (2, 2, 1, 0)[frame]], track=7))
    picture = root / "Data" / "DET" / IMAGE
    write_pictures(picture.parent, [f"{picture.name}.JPEG"])
    annotation = root / "Annotations" / "DET" / f"{IMAGE}.xml"
    annotation.parent.mkdir(parents=True)
    annotation.write_text(_xml(("n02419796", 2, 3, 11, 12), ("n00000001", 1, 1, 9, 9), track=None))
    return root


def _list(source: Path, name: str, *lines: str, folder: str = "ImageSets") -> None:
    (source / folder).mkdir(parents=True, exist_ok=True)
    (source / folder / name).write_text("".join(f"{line}\n" for line in lines))


def _load(raw: Path, split: str) -> VideoAnnotations:
    return load_annotations(raw / "annotations" / f"{split}.json")


def test_the_classes_are_those_of_the_challenge() -> None:
    names = list(CLASSES.values())
    assert (len(CLASSES), names, names[0], names[-1]) == (30, sorted(names), "airplane", "zebra")


def test_three_videos_come_over_with_their_splits_tracks_and_pictures(source: Path, tmp_path: Path) -> None:
    report = import_imagenet_vid(source.parent, tmp_path / "raw", AUTO)
    assert list(report["splits"]) == ["train", "val"]
    for split, names in (("train", [TRAIN]), ("val", VALS)):
        annotations = _load(tmp_path / "raw", split)
        assert [video.name for video in annotations.videos] == [name.rsplit("/")[-1] for name in names]
        assert annotations.label_names == list(CLASSES.values())
        assert annotations.corner_pixels_inside
        for video in annotations.videos:
            assert annotations.frame_ids(video.name) == [0, 1, 2, 3]
            assert annotations.boxes(video.name, 1)[0].tolist() == [[1, 1, 11, 21], [50, 30, 96, 64]]
            assert annotations.boxes(video.name, 1)[1].tolist() == [1, 5]
            assert [len(annotations.objects(video.name, frame)) for frame in (2, 3)] == [1, 0]
            assert len(list(read_footage(tmp_path / "raw" / video.file_name))) == 4
    instances = [item.instance_id for item in _load(tmp_path / "raw", "val").annotations]
    assert instances == [1, 2, 1, 2, 1, 3, 4, 3, 4, 3]
    assert (report["boxes_occluded"], report["boxes_generated"], report["boxes_clipped"]) == (15, 0, 0)


def test_key_frames_count_from_0_and_are_those_that_training_shows(source: Path, tmp_path: Path) -> None:
    _list(source, "VID_train_15frames.txt", f"{TRAIN} 1 0 4", f"{TRAIN} 1 3 4", folder="ImageSets/VID")
    report = import_imagenet_vid(source, tmp_path / "raw", AUTO)
    assert report["videos"]["ILSVRC2015_train_00000000"]["vid_train_frames"] == 2
    train = _load(tmp_path / "raw", "train")
    assert train.frame_ids("ILSVRC2015_train_00000000") == [0, 1, 2, 3]
    assert train.current_frames("ILSVRC2015_train_00000000") == [0, 3]
    assert {video.vid_train_frames for video in _load(tmp_path / "raw", "val").videos} == {()}
    _list(source, "VID_train_15frames.txt", f"{TRAIN} 1 4 4", folder="ImageSets/VID")
    with pytest.raises(
        AnnotationError, match=r"15frames\.txt:1: found '4', expected a frame counted from 0, .* 3"
    ):
        import_imagenet_vid(source, tmp_path / "other", AUTO)


@pytest.mark.parametrize(
    "lines",
    [
        [f"{video} 1 0 4" for video in VALS],
        [f"{video} 1 {frame} 4" for video in VALS for frame in range(4)],
        [f"{video}/{frame:06d} 1" for video in VALS for frame in range(4)],
    ],
    ids=["one line a video", "one line a frame", "one line a frame with its name"],
)
def test_both_kinds_of_validation_lists_name_the_same_videos(
    source: Path, tmp_path: Path, lines: list[str]
) -> None:
    _list(source, "VID_val_videos.txt", *lines)
    import_imagenet_vid(source, tmp_path / "raw", AUTO)
    annotations = _load(tmp_path / "raw", "val")
    names = [video.rsplit("/")[-1] for video in VALS]
    assert {name: annotations.frame_ids(name) for name in names} == {name: [0, 1, 2, 3] for name in names}


def test_frames_left_out_of_a_validation_list_are_not_judged(source: Path, tmp_path: Path) -> None:
    _list(source, "VID_val_videos.txt", *(f"{VALS[1]} 1 {frame} 4" for frame in (1, 2)))
    import_imagenet_vid(source, tmp_path / "raw", AUTO)
    annotations = _load(tmp_path / "raw", "val")
    assert {v.name: annotations.frame_ids(v.name) for v in annotations.videos} == {
        "ILSVRC2015_val_00000001": [1, 2]
    }
    assert len(annotations.annotations) == 3


def test_images_of_det_are_videos_of_one_frame(source: Path, tmp_path: Path) -> None:
    _list(source, "DET_train_30classes.txt", f"{IMAGE} 1")
    report = import_imagenet_vid(source, tmp_path / "raw", AUTO)
    annotations = _load(tmp_path / "raw", "train")
    image = annotations.video_by_name["n02419796_7993"]
    assert (image.file_name, image.num_frames) == ("videos/n02419796_7993.JPEG", 1)
    assert annotations.boxes("n02419796_7993", 0)[0].tolist() == [[2, 3, 12, 13]]
    assert len(list(read_footage(tmp_path / "raw" / image.file_name))) == 1
    assert report["boxes_of_other_categories"] == 1


def test_annotations_alone_say_sizes_and_lengths(source: Path, tmp_path: Path) -> None:
    import_imagenet_vid(source, tmp_path / "raw", ALONE)
    video = _load(tmp_path / "raw", "train").videos[0]
    assert (video.width, video.height, video.num_frames) == (96, 64, 4)


def test_frames_without_a_file_are_not_annotated(source: Path, tmp_path: Path) -> None:
    (source / "Annotations" / "VID" / TRAIN / "000001.xml").unlink()
    report = import_imagenet_vid(source, tmp_path / "raw", AUTO)
    assert report["frames_without_annotation"] == 1
    assert _load(tmp_path / "raw", "train").frame_ids("ILSVRC2015_train_00000000") == [0, 2, 3]


def test_lists_must_fit_the_pictures(source: Path, tmp_path: Path) -> None:
    _list(source, "VID_val_videos.txt", f"{VALS[0]} 1 0 5")
    with pytest.raises(
        AnnotationError, match=r"val_videos\.txt:1: found a length of 5 .*, expected its 4 frames"
    ):
        import_imagenet_vid(source, tmp_path / "raw", AUTO)
    _list(source, "VID_val_videos.txt", f"{VALS[0]} 1 0 4", f"{VALS[0]} 1 1 5")
    with pytest.raises(AnnotationError, match=r"val_videos\.txt:2: found 5, expected the length 4 again"):
        import_imagenet_vid(source, tmp_path / "raw", AUTO)
    _list(source, "VID_val_videos.txt", "../../etc 1 0 4")
    with pytest.raises(AnnotationError, match=r"val_videos\.txt:1: found .* expected a path and numbers"):
        import_imagenet_vid(source, tmp_path / "raw", AUTO)
    _list(source, "VID_val_videos.txt", "val/nothing 1 0 4")
    with pytest.raises(AnnotationError, match=r"val_videos\.txt:1: .*nothing holds no annotation"):
        import_imagenet_vid(source, tmp_path / "raw", AUTO)
    assert not (tmp_path / "raw").exists()


def test_missing_pictures_and_layouts_are_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"none/VID/train/.*: no such picture or folder"):
        import_imagenet_vid(source, tmp_path / "raw", ImportOptions(videos=tmp_path / "none"))
    with pytest.raises(AnnotationError, match="holds no Annotations/VID, expected the layout of ILSVRC2015"):
        import_imagenet_vid(source / "Data", tmp_path / "raw", AUTO)


def test_malformed_files_are_refused_by_file_and_line(refuse_malformed: Callable[..., None]) -> None:
    folder, det = "Annotations/VID", "Annotations/DET"
    objects = [("n02691156", 1, 1, 9, 20), ("n01503061", 50, 30, 90, 63)]
    files = {
        f"{folder}/{video}/{frame:06d}.xml": _xml(*objects).encode()
        for video in (TRAIN, *VALS)
        for frame in range(1 + (video != VALS[1]))
    }
    files[f"{det}/{IMAGE}.xml"] = _xml(*objects, track=None).encode()
    files["ImageSets/VID_train_15frames.txt"] = f"{TRAIN} 1 0 2\n{TRAIN} 1 1 2\n".encode()
    files["ImageSets/VID_val_videos.txt"] = f"{VALS[0]} 1 0 2\n{VALS[1]} 1 0 1\n".encode()
    files["ImageSets/DET_train_30classes.txt"] = f"{IMAGE} 1\n".encode()
    refuse_malformed(import_imagenet_vid, files, [name for name in files if VALS[1] not in name])
