from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lstfe.data.coco_video import VideoAnnotations, load_annotations
from lstfe.data.faults import AnnotationError
from lstfe.data.importers.cvat import import_cvat
from lstfe.data.raw import ImportOptions

NONE = ImportOptions(split="none")
ALONE = ImportOptions(split="none", annotations_only=True)

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>7</id>
      <name>{name}</name>
      <size>{size}</size>
      <mode>interpolation</mode>
      <start_frame>{start}</start_frame>
      <stop_frame></stop_frame>
      <frame_filter>{frame_filter}</frame_filter>
      <labels><label><name>drone</name><attributes></attributes></label></labels>
      <original_size><width>96</width><height>64</height></original_size>
      <source>{source}</source>
    </task>
    <dumped>2024-01-01 00:00:00</dumped>
  </meta>
"""
TRACKS = """  <track id="0" label="drone" source="manual">
    <box frame="0" outside="0" occluded="0" keyframe="1" xtl="10.50" ytl="20.00" xbr="30.50" ybr="40.00" z_order="0">
      <attribute name="kind">quad</attribute>
    </box>
    <box frame="1" outside="0" occluded="1" keyframe="0" xtl="11.50" ytl="20.00" xbr="31.50" ybr="40.00" z_order="0"/>
    <box frame="2" outside="1" occluded="0" keyframe="1" xtl="11.50" ytl="20.00" xbr="31.50" ybr="40.00" z_order="0"/>
  </track>
  <track id="1" label="bird">
    <box frame="1" keyframe="1" xtl="-4" ytl="0" xbr="6" ybr="10"/>
  </track>
  <track id="2" label="bird"><polygon frame="0" points="1,1;2,2;3,1"/></track>
"""


def _xml(tracks: str = TRACKS, **meta: object) -> str:
    values = {"name": "flight", "size": 5, "start": "", "frame_filter": "", "source": "a.mp4"} | meta
    return HEAD.format(**values) + tracks + "</annotations>\n"


def _load(raw: Path, split: str = "all") -> VideoAnnotations:
    return load_annotations(raw / "annotations" / f"{split}.json")


def _import(tmp_path: Path, xml: str) -> dict[str, object]:
    source = tmp_path / "a.xml"
    source.write_text(xml, encoding="utf-8")
    return import_cvat(source, tmp_path / "raw", ALONE)


def test_a_task_without_tracks_is_a_video_without_objects(tmp_path: Path) -> None:
    _import(tmp_path, _xml(""))
    annotations = _load(tmp_path / "raw")
    assert (annotations.frame_ids("a"), annotations.annotations) == ([0, 1, 2, 3, 4], [])


def test_three_tasks_come_over_with_their_videos(
    tmp_path: Path, write_video: Callable[[Path, int], None]
) -> None:
    source = tmp_path / "source"
    for name in "abc":
        write_video(source / "videos" / f"{name}.mp4", 5)
        (source / f"{name}.xml").write_text(_xml(source=f"{name}.mp4"))
    report = import_cvat(source, tmp_path / "raw", NONE)
    annotations = _load(tmp_path / "raw")
    assert [video.file_name for video in annotations.videos] == [f"videos/{name}.mp4" for name in "abc"]
    for name in "abc":
        assert annotations.boxes(name, 0)[0].tolist() == [[10.5, 20, 30.5, 40]]
        assert annotations.boxes(name, 1)[0].tolist() == [[11.5, 20, 31.5, 40], [0, 0, 6, 10]]
        assert [len(annotations.objects(name, frame)) for frame in (2, 3, 4)] == [0, 0, 0]
    assert [item.instance_id for item in annotations.annotations[:3]] == [1, 1, 2]
    assert annotations.label_names == ["drone", "bird"]
    assert (report["boxes_clipped"], report["shapes_left_out"], report["boxes_interpolated"]) == (3, 3, 0)


def test_a_task_folder_brings_its_pictures(
    tmp_path: Path, write_pictures: Callable[[Path, Sequence[str]], None]
) -> None:
    folder = tmp_path / "source" / "any"
    write_pictures(folder / "images", [f"frame_{number:06d}.jpg" for number in range(5)])
    (folder / "annotations.xml").write_text(_xml(source="upload.zip"))
    import_cvat(tmp_path / "source", tmp_path / "raw", NONE)
    assert [video.file_name for video in _load(tmp_path / "raw").videos] == ["videos/flight"]
    assert len(list((tmp_path / "raw" / "videos" / "flight").iterdir())) == 5


def test_left_out_frames_of_a_track_are_interpolated(tmp_path: Path) -> None:
    tracks = """<track id="0" label="drone">
      <box frame="0" keyframe="1" xtl="0" ytl="0" xbr="10" ybr="10"/>
      <box frame="4" keyframe="1" xtl="8" ytl="4" xbr="22" ybr="10"/></track>"""
    report = _import(tmp_path, _xml(tracks))
    boxes = [item.bbox for item in _load(tmp_path / "raw").annotations]
    assert boxes == [(0, 0, 10, 10), (2, 1, 11, 9), (4, 2, 12, 8), (6, 3, 13, 7), (8, 4, 14, 6)]
    assert report["boxes_interpolated"] == 3


def test_a_box_stays_where_it_is_until_it_is_outside_and_is_gone_from_then(tmp_path: Path) -> None:
    tracks = """<track id="0" label="drone">
      <box frame="0" keyframe="1" xtl="0" ytl="0" xbr="10" ybr="10"/>
      <box frame="2" keyframe="1" outside="1" xtl="8" ytl="4" xbr="22" ybr="10"/>
      <box frame="4" keyframe="1" xtl="8" ytl="4" xbr="22" ybr="10"/></track>"""
    _import(tmp_path, _xml(tracks))
    annotations = _load(tmp_path / "raw")
    assert [len(annotations.objects("a", frame)) for frame in range(5)] == [1, 1, 0, 0, 1]
    assert annotations.objects("a", 1)[0].bbox == (0, 0, 10, 10)


def test_only_frames_that_pass_the_filter_are_annotated(tmp_path: Path) -> None:
    tracks = """<track id="0" label="drone">
      <box frame="3" keyframe="1" xtl="0" ytl="0" xbr="10" ybr="10"/>
      <box frame="9" keyframe="1" xtl="6" ytl="0" xbr="16" ybr="10"/></track>"""
    _import(tmp_path, _xml(tracks, start=3, frame_filter="step=3", size=4))
    annotations = _load(tmp_path / "raw")
    assert annotations.frame_ids("a") == [3, 6, 9, 12]
    assert annotations.objects("a", 6)[0].bbox == (3, 0, 10, 10)
    assert annotations.videos[0].num_frames == 13


def test_a_turned_box_becomes_the_upright_box_around_it(tmp_path: Path) -> None:
    tracks = """<track id="0" label="drone">
      <box frame="0" rotation="90" xtl="20" ytl="20" xbr="40" ybr="30"/></track>"""
    report = _import(tmp_path, _xml(tracks))
    assert _load(tmp_path / "raw").annotations[0].bbox == pytest.approx((25, 15, 10, 20))
    assert report["boxes_rotated"] == 1


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", r"a\.xml:1: not well-formed \(no element found\), expected XML"),
        ("<html/>", r"a\.xml:1: found '<html>', expected <annotations> as the outermost element"),
        ("<annotations/>", r"a\.xml:1: found no <meta>"),
        (
            "<annotations>\n<meta><project/></meta></annotations>",
            r"a\.xml:2: found no <task> or <job> .* one by",
        ),
        (_xml('<image id="0"/>'), r"a\.xml:19: found '<image>', expected <track>: CVAT for video"),
        (_xml("<track id='0'/>"), r"a\.xml:19: found no 'label' on <track>, expected label="),
        (_xml("<track label='x'>\n<box frame='5'/></track>"), r"a\.xml:20: found no 'xtl' on <box>"),
        (
            _xml(TRACKS.replace(' frame="1"', ' frame="5"', 1)),
            r"a\.xml:23: found 5, expected a frame of the task",
        ),
        (
            _xml(TRACKS.replace(' frame="1"', ' frame="0"', 1)),
            r"a\.xml:23: found 0, expected a frame after 0",
        ),
        (_xml(TRACKS.replace("10.50", "ten")), r"a\.xml:20: found 'ten', expected xtl, a number"),
        (
            _xml(frame_filter="every 5th"),
            r"a\.xml:12: found 'every 5th', expected <frame_filter> like step=5",
        ),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_written(tmp_path: Path, xml: str, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        _import(tmp_path, xml)
    assert [path.name for path in tmp_path.iterdir()] == ["a.xml"]


def test_a_task_longer_than_its_video_or_of_another_size_is_named(
    tmp_path: Path, write_video: Callable[[Path, int], None]
) -> None:
    write_video(tmp_path / "a.mp4", 4)
    (tmp_path / "a.xml").write_text(_xml())
    with pytest.raises(AnnotationError, match=r"a\.xml:5: the task's last: frame 4 is past the end of a"):
        import_cvat(tmp_path / "a.xml", tmp_path / "raw", NONE)
    (tmp_path / "a.xml").write_text(_xml(size=4).replace("<width>96", "<width>98"))
    with pytest.raises(AnnotationError, match=r"original_size of 98x64 pixels, expected 96x64 as in"):
        import_cvat(tmp_path / "a.xml", tmp_path / "raw", NONE)


def test_two_files_for_one_video_are_named(tmp_path: Path) -> None:
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_text(_xml())
    with pytest.raises(AnnotationError, match=r"b\.xml:5: video a is annotated in .*a\.xml already"):
        import_cvat(tmp_path, tmp_path / "raw", ALONE)
    with pytest.raises(AnnotationError, match=r"no CVAT file, expected \.xml files"):
        import_cvat(tmp_path / "nowhere", tmp_path / "raw", ALONE)


def test_malformed_files_are_refused_by_file_and_line(refuse_malformed: Callable[..., None]) -> None:
    files = {f"{name}.xml": _xml(source=f"{name}.mp4").encode() for name in "abc"}
    refuse_malformed(import_cvat, files, ["b.xml"])
