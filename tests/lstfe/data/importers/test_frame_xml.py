from __future__ import annotations

from pathlib import Path

import pytest

from lstfe.data.faults import AnnotationError
from lstfe.data.importers.frame_xml import FrameObject, FrameXml, read_frame_xml

OBJECT = """<object><trackid>3</trackid><name> n01 </name>
<bndbox><xmax>9</xmax><xmin>1</xmin><ymax>8.5</ymax><ymin>2</ymin></bndbox>
<occluded>1</occluded><generated>0</generated><difficult>1</difficult></object>"""


def _read(tmp_path: Path, content: str) -> FrameXml:
    path = tmp_path / "a.xml"
    path.write_text(f"<annotation>{content}</annotation>")
    return read_frame_xml(path)


def test_an_empty_annotation_is_a_frame_without_objects(tmp_path: Path) -> None:
    assert _read(tmp_path, "") == FrameXml((0, 0), [])


def test_objects_keep_their_corners_track_and_flags(tmp_path: Path) -> None:
    size = "<size><width>96</width><height>64</height><depth>3</depth></size>"
    expected = FrameObject("n01", (1, 2, 9, 8.5), 3, is_occluded=True, is_generated=False, is_difficult=True)
    assert _read(tmp_path, size + OBJECT) == FrameXml((64, 96), [expected])


def test_tracks_and_flags_may_be_absent(tmp_path: Path) -> None:
    bare = "<object><name>x</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>"
    [item] = _read(tmp_path, bare).objects
    assert item.track is None
    assert (item.is_occluded, item.is_generated, item.is_difficult) == (False, False, False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("<trackid>", "<trackid><x>"), r"not well-formed \(mismatched tag\)"),
        ((">3<", ">-3<"), "found '-3', expected <trackid>, an integer from 0"),
        ((">1</occluded", ">2</occluded"), "found '2', expected <occluded>, an integer from 0 to 1"),
        (("<xmin>1</xmin>", ""), "found no <xmin> in <bndbox>, expected one"),
        ((">8.5<", "><"), "found '', expected <ymax>, a number"),
    ],
)
def test_a_wrong_object_is_named(tmp_path: Path, damage: tuple[str, str], message: str) -> None:
    with pytest.raises(AnnotationError, match=rf"a\.xml:\d: ({message})"):
        _read(tmp_path, OBJECT.replace(*damage))
