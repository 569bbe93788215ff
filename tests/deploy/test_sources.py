from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from deploy.sources import SourceError, open_source
from lstfe.data.coco_video import VideoEntry
from lstfe.data.footage import probe_footage
from lstfe.data.video import DEFAULT_FRAME_RATE, read_video
from lstfe.errors import UserError

from ..turned_video import turn_video


def write_picture(path: Path, value: int, size: tuple[int, int] = (48, 32), mode: str = "RGB") -> None:
    Image.new(mode, size, value if mode != "RGB" else (value, value, value)).save(path)


def test_an_empty_folder_has_no_frames(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match=r"no pictures in it, expected one a frame \(.jpg, .jpeg"):
        open_source(tmp_path)


def test_a_folder_gives_its_pictures_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1, 100):
        write_picture(tmp_path / f"frame_{number}.png", number)
    source = open_source(tmp_path)
    assert (source.name, source.num_frames) == (tmp_path.name, 4)
    assert [int(frame[0, 0, 0]) for frame in source.read()] == [1, 9, 10, 100]


def test_pictures_have_one_frame_rate_whether_detected_on_imported_or_annotated(tmp_path: Path) -> None:
    write_picture(tmp_path / "1.png", 0)
    assert open_source(tmp_path).frame_rate == probe_footage(tmp_path).frame_rate == DEFAULT_FRAME_RATE
    assert VideoEntry(1, "v", "v", 48, 32, 1).frame_rate == DEFAULT_FRAME_RATE


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (48, 32), (102, 102, 102)).convert(mode).save(tmp_path / "one.png")
    [frame] = open_source(tmp_path).read()
    assert frame.shape == (32, 48, 3)
    assert frame.dtype == np.uint8
    assert (frame == 102).all()  # a colour of the usual palette


def test_a_picture_of_sixteen_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "infrared.png")
    with pytest.raises(SourceError, match=r"infrared.png: mode I;16, expected 8 bits"):
        list(open_source(tmp_path).read())


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(b"not a picture")
    with pytest.raises(SourceError, match=r"one.jpg: not readable as a picture"):
        list(open_source(tmp_path).read())


def test_a_video_s_frames_are_counted_and_can_be_read_twice(make_video: Callable[..., Any]) -> None:
    source = open_source(make_video(5))
    assert (source.name, source.num_frames, source.frame_rate) == ("clip", 5, 30.0)
    assert [sum(1 for _ in source.read()) for _ in range(2)] == [5, 5]


def test_max_frames_ends_a_source_early(make_video: Callable[..., Any]) -> None:
    source = open_source(make_video(5), max_frames=3)
    assert source.num_frames == 3
    assert sum(1 for _ in source.read()) == 3
    assert open_source(make_video(5), max_frames=9).num_frames == 5


def test_nothing_by_that_name_says_what_a_source_can_be(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a video, a folder of pictures, a camera's number"):
        open_source(tmp_path / "nowhere.mp4")


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\x00" * 5000)
    with pytest.raises(UserError, match=r"broken.mp4"):
        open_source(path)


def test_a_folder_s_pictures_are_those_that_the_data_sets_take(tmp_path: Path) -> None:
    for name in ("1²3.jpg", "b.png"):
        write_picture(tmp_path / name, 9)
    (tmp_path / "._b.jpg").write_bytes(b"left by a file manager")
    assert open_source(tmp_path).num_frames == 2


@pytest.mark.parametrize(
    ("source", "message"), [("", "the source is empty"), ("http://[bad", r"http://\.\.\.: not an address")]
)
def test_what_names_nothing_is_refused(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(source)


@pytest.mark.parametrize("source", [97, "97", "/dev/video97"])
def test_a_camera_that_is_not_there_is_refused(source: str | int) -> None:
    with pytest.raises(SourceError, match="camera97: cannot be opened"):
        open_source(source)


def test_an_address_s_password_is_never_shown() -> None:
    with pytest.raises(SourceError) as caught:
        open_source("rtsp://me:secret@127.0.0.1:9/door?token=hidden")
    assert str(caught.value).startswith("rtsp://127.0.0.1/door: cannot be opened")
    assert "secret" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_a_stream_s_address_is_read_as_a_live_source(make_video: Callable[..., Any]) -> None:
    source = open_source(make_video(4).as_uri())
    assert source.num_frames is None
    assert sum(1 for _ in source.read()) == 4


def test_a_phone_s_stream_is_turned_upright_as_its_file_is(make_video: Callable[..., Any]) -> None:
    path = turn_video(make_video(2), "clockwise")
    frames = list(open_source(path.as_uri()).read())
    assert frames[0].shape == (96, 64, 3)
    np.testing.assert_array_equal(frames, list(read_video(path)))
