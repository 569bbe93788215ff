from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lstfe.data.footage import find_footage, list_pictures, place_footage, probe_footage, read_footage
from lstfe.data.video import VideoError, VideoInfo, VideoWriter


def _pictures(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for index, name in enumerate(names):
        Image.new("RGB", (96, 64), (20 * index,) * 3).save(folder / name)
    return folder


def _video(path: Path, num_frames: int = 3) -> Path:
    with VideoWriter(path, 25, (64, 96)) as video:
        for index in range(num_frames):
            video.write(np.full((64, 96, 3), 40 * index, np.uint8))
    return path


def test_a_folder_without_pictures_is_no_footage(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    for use in (probe_footage, read_footage, list_pictures):
        with pytest.raises(VideoError, match=r"no pictures in it, expected one a frame \(\.jpg"):
            use(tmp_path)


def test_pictures_are_frames_in_natural_order(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "v", "f_9.png", "f_10.png", "f_8.png")
    for name in ("Thumbs.db", "._f_9.png"):
        (folder / name).touch()
    assert [path.name for path in list_pictures(folder)] == ["f_8.png", "f_9.png", "f_10.png"]
    assert [int(frame[0, 0, 0]) for frame in read_footage(folder)] == [40, 0, 20]
    assert probe_footage(folder, frame_rate=5) == VideoInfo(96, 64, 3, 5)


def test_grey_pictures_are_read_as_colour(tmp_path: Path) -> None:
    Image.new("L", (4, 2), 9).save(tmp_path / "a.png")
    [frame] = read_footage(tmp_path / "a.png")
    assert (frame.shape, frame.dtype, int(frame.min())) == ((2, 4, 3), np.uint8, 9)


def test_a_single_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    picture = _pictures(tmp_path / "v", "a.JPEG") / "a.JPEG"
    assert probe_footage(picture).num_frames == 1
    assert next(iter(read_footage(picture))).shape == (64, 96, 3)


def test_a_video_file_is_decoded_to_its_end(tmp_path: Path) -> None:
    video = _video(tmp_path / "v.mp4")
    assert probe_footage(video) == VideoInfo(96, 64, 3, 25.0)
    assert len(list(read_footage(video))) == 3


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "v", "a.png", "b.png")
    (folder / "b.png").write_bytes(b"no picture")
    frames = read_footage(folder)
    next(frames)
    with pytest.raises(VideoError, match=r"b\.png: not readable as a picture"):
        next(frames)


def test_pictures_of_more_than_8_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(VideoError, match=r"a\.tif: mode I, expected 8 bits a channel"):
        list(read_footage(tmp_path))


def test_footage_is_a_file_or_a_folder_in_the_first_place_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    (second / "v.avi").touch()
    assert find_footage([first, second], "v") == second / "v.avi"
    (first / "v").mkdir()
    assert find_footage([first, second], "v") == first / "v"
    (first / "v.mp4").touch()
    with pytest.raises(VideoError, match=r"first: v is there as v\.mp4 and v, expected once"):
        find_footage([first, second], "v")
    with pytest.raises(VideoError, match=r"first/w or .*second/w: no such video.*--videos DIR"):
        find_footage([first, second], "w")


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "v.MP4").touch()
    assert find_footage([tmp_path], "v").samefile(tmp_path / "v.MP4")


@pytest.mark.parametrize("link", [False, True])
def test_footage_is_copied_or_hard_linked(tmp_path: Path, link: bool) -> None:
    video, folder = _video(tmp_path / "v.mp4"), _pictures(tmp_path / "p", "a.png", "b.png")
    (folder / "a.xml").touch()
    place_footage(video, tmp_path / "w.mp4", link=link)
    place_footage(folder, tmp_path / "q", link=link)
    assert sorted(path.name for path in (tmp_path / "q").iterdir()) == ["a.png", "b.png"]
    for source, target in ((video, tmp_path / "w.mp4"), (folder / "a.png", tmp_path / "q" / "a.png")):
        assert target.read_bytes() == source.read_bytes()
        assert target.samefile(source) == link


def test_placing_footage_where_it_lies_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"film")
    place_footage(path, path, link=False)
    assert path.read_bytes() == b"film"
