from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lstfe.data.coco_video import VideoAnnotations, load_annotations
from lstfe.data.faults import AnnotationError
from lstfe.data.importers.voc import import_voc
from lstfe.data.raw import ImportOptions

NONE = ImportOptions(split="none")
ALONE = ImportOptions(split="none", annotations_only=True)
WritePictures = Callable[[Path, Sequence[str]], None]


def _xml(*objects: tuple[str, int, int, int, int], width: int = 96, extra: str = "") -> str:
    rows = "".join(
        f"""
  <object>
    <name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>{extra}
    <bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>
    <part><name>wing</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
  </object>"""
        for name, xmin, ymin, xmax, ymax in objects
    )
    return f"""<annotation>
  <folder>VOC2007</folder>
  <filename>000001.jpg</filename>
  <size><width>{width}</width><height>64</height><depth>3</depth></size>
  <segmented>0</segmented>{rows}
</annotation>
"""


@pytest.fixture
def source(tmp_path: Path, write_pictures: WritePictures) -> Path:
    """Three videos of five pictures; the third picture (f_10.jpg) of each has no file."""
    root = tmp_path / "source"
    for video in "abc":
        write_pictures(root / "JPEGImages" / video, [f"f_{number}.jpg" for number in (8, 9, 10, 11, 12)])
        folder = root / "Annotations" / video
        folder.mkdir(parents=True)
        for number in (8, 9, 11, 12):
            objects = [("drone", number, 1, number + 9, 20), ("bird", 60, 30, 96, 70)]
            (folder / f"f_{number}.xml").write_text(_xml(*objects[: number - 7]) if number < 12 else _xml())
    return root


def _load(raw: Path) -> VideoAnnotations:
    return load_annotations(raw / "annotations" / "all.json")


def test_a_file_without_objects_is_a_frame_without_objects(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "a"
    folder.mkdir(parents=True)
    (folder / "000000.xml").write_text("<annotation/>")
    import_voc(tmp_path / "source", tmp_path / "raw", ALONE)
    annotations = _load(tmp_path / "raw")
    assert (annotations.frame_ids("a"), annotations.annotations) == ([0], [])


def test_three_videos_come_over_with_their_pictures(source: Path, tmp_path: Path) -> None:
    report = import_voc(source, tmp_path / "raw", NONE)
    annotations = _load(tmp_path / "raw")
    assert [video.file_name for video in annotations.videos] == ["videos/a", "videos/b", "videos/c"]
    for video in "abc":
        assert annotations.frame_ids(video) == [0, 1, 3, 4]
        assert annotations.corner_pixels_inside
        assert annotations.boxes(video, 0)[0].tolist() == [[7, 0, 17, 20]]
        assert annotations.boxes(video, 1)[0].tolist() == [[8, 0, 18, 20], [59, 29, 96, 64]]
        assert len(annotations.objects(video, 4)) == 0
        assert len(list((tmp_path / "raw" / "videos" / video).iterdir())) == 5
    assert [item.instance_id for item in annotations.annotations] == [
        1,
        1,
        2,
        1,
        2,
        3,
        3,
        4,
        3,
        4,
        5,
        5,
        6,
        5,
        6,
    ]
    assert annotations.label_names == ["drone", "bird"]
    assert (report["frames_without_annotation"], report["boxes_clipped"]) == (3, 6)


def test_files_may_lie_beside_the_pictures(tmp_path: Path, write_pictures: WritePictures) -> None:
    folder = tmp_path / "source" / "a"
    write_pictures(folder, ["000000.jpg", "000001.jpg"])
    (folder / "000001.xml").write_text(_xml(("drone", 1, 1, 10, 10)))
    import_voc(tmp_path / "source", tmp_path / "raw", NONE)
    assert _load(tmp_path / "raw").frame_ids("a") == [1]
    assert sorted(p.name for p in (tmp_path / "raw" / "videos" / "a").iterdir()) == [
        "000000.jpg",
        "000001.jpg",
    ]


def test_numbers_are_frames_of_a_video_file(
    source: Path, tmp_path: Path, write_video: Callable[[Path, int], None]
) -> None:
    for video in "abc":
        write_video(tmp_path / "films" / f"{video}.mp4", 13)
    import_voc(source, tmp_path / "raw", ImportOptions(split="none", videos=tmp_path / "films"))
    annotations = _load(tmp_path / "raw")
    assert annotations.frame_ids("a") == [8, 9, 11, 12]
    assert annotations.videos[0].num_frames == 13
    write_video(tmp_path / "films" / "b.mp4", 12)
    with pytest.raises(AnnotationError, match=r"f_12\.xml:1: frame 12 is past the end of b"):
        import_voc(source, tmp_path / "other", ImportOptions(videos=tmp_path / "films"))


def test_track_ids_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "a"
    folder.mkdir(parents=True)
    for frame, track in ((0, 5), (1, 3)):
        xml = _xml(("drone", 1, 1, 10, 10), extra=f"<trackid>{track}</trackid>")
        (folder / f"{frame}.xml").write_text(xml)
    import_voc(tmp_path / "source", tmp_path / "raw", ALONE)
    assert [item.instance_id for item in _load(tmp_path / "raw").annotations] == [2, 1]


def test_difficult_objects_become_crowds_and_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "a"
    folder.mkdir(parents=True)
    objects = [("drone", 1, 1, 10, 10), ("drone", 31, 31, 40, 40)]
    hard = "<difficult>1</difficult>".join(_xml(*objects).rsplit("<difficult>0</difficult>", 1))
    (folder / "0.xml").write_text(hard)
    (folder / "1.xml").write_text(_xml(*objects).replace("<difficult>0</difficult>", ""))
    report = import_voc(tmp_path / "source", tmp_path / "raw", ALONE)
    assert [item.iscrowd for item in _load(tmp_path / "raw").annotations] == [0, 1, 0, 0]
    assert report["boxes_difficult"] == report["videos"]["a"]["boxes_difficult"] == 1


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotations/>", r"f_9\.xml:1: found '<annotations>', expected <annotation> as the outermost"),
        (_xml(("", 1, 1, 5, 5)), r"f_9\.xml:7: found '', expected a name in <name>"),
        (_xml(("x", 1, 1, 5, 5)).replace("xmax", "max"), r"f_9\.xml:8: found no <xmax> in <bndbox>"),
        (
            _xml(("x", 1, 1, 5, 5)).replace(">5<", ">five<"),
            r"f_9\.xml:8: found 'five', expected <xmax>, a number",
        ),
        (_xml(width=97), r"f_9\.xml:1: found a size of 97x64 pixels, expected 96x64"),
    ],
)
def test_a_wrong_file_is_named_and_nothing_is_written(
    source: Path, tmp_path: Path, xml: str, message: str
) -> None:
    (source / "Annotations" / "b" / "f_9.xml").write_text(xml)
    with pytest.raises(AnnotationError, match=message):
        import_voc(source, tmp_path / "raw", NONE)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_files_that_belong_to_no_frame_are_named(source: Path, tmp_path: Path) -> None:
    (source / "Annotations" / "b" / "f_99.xml").write_text(_xml())
    with pytest.raises(AnnotationError, match=r"f_99\.xml:1: found 'f_99', expected the name of one of the"):
        import_voc(source, tmp_path / "raw", NONE)
    (source / "Annotations" / "b" / "last.xml").write_text(_xml())
    with pytest.raises(
        AnnotationError, match=r"last\.xml:1: found 'last\.xml', expected a name that ends with"
    ):
        import_voc(source, tmp_path / "raw", ALONE)


def test_files_without_folders_of_their_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"holds no VIDEO/FRAME\.xml"):
        import_voc(tmp_path, tmp_path / "raw", NONE)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "000001.xml").write_text(_xml())
    with pytest.raises(AnnotationError, match=r"holds \.xml files, expected one folder a video"):
        import_voc(tmp_path, tmp_path / "raw", NONE)


def test_malformed_files_are_refused_by_file_and_line(refuse_malformed: Callable[..., None]) -> None:
    files = {
        f"Annotations/{video}/{frame}.xml": _xml(("drone", 1, 1, 9, 9), ("bird", 4, 4, 8, 8)).encode()
        for video in "abc"
        for frame in range(2)
    }
    refuse_malformed(import_voc, files, ["Annotations/b/1.xml"])
