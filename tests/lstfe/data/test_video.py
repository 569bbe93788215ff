from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lstfe.data.video import (
    Frame,
    VideoError,
    VideoInfo,
    VideoWriter,
    _check_length,
    decode_video,
    probe_video,
    read_video,
)

from ...turned_video import TURNS, turn_video


def _write(path: Path, frames: list[Frame], frame_rate: float = 30.0) -> Path:
    with VideoWriter(path, frame_rate, (frames[0].shape[0], frames[0].shape[1])) as video:
        for frame in frames:
            video.write(frame)
    return path


def _grey_frames(count: int, image_size: tuple[int, int] = (64, 96)) -> list[Frame]:
    return [np.full((*image_size, 3), 40 + 5 * index, np.uint8) for index in range(count)]


def _noisy_video(path: Path) -> Path:
    random = np.random.default_rng(0)
    return _write(path, [random.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(40)])


def test_a_missing_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"nothing\.mp4: no such video file"):
        list(read_video(tmp_path / "nothing.mp4"))


@pytest.mark.parametrize("content", [b"", b"this is no video" * 100])
def test_a_file_that_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"broken\.mp4: cannot be decoded past frame 0"):
        probe_video(path)


def test_a_video_cut_off_in_a_copy_is_an_error_not_a_short_video(tmp_path: Path) -> None:
    path = _noisy_video(tmp_path / "whole.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    # Which of the two it is depends on where exactly the cut falls, and on the decoder's threads.
    with pytest.raises(VideoError, match=r"only \d+ of the 40 frames|cannot be decoded past frame \d+"):
        list(read_video(path))


def test_a_file_that_ends_early_between_two_frames_is_told_by_its_length() -> None:
    _check_length("a.mp4", 40, announced=40)
    _check_length("a.mp4", 38, announced=40)  # an edit list may hide a few
    _check_length("a.avi", 40, announced=0)  # not every container says
    with pytest.raises(VideoError, match=r"a\.mp4: only 25 of the 40 frames that the file announces"):
        _check_length("a.mp4", 25, announced=40)


def test_a_video_damaged_in_the_middle_is_named_with_the_frame(tmp_path: Path) -> None:
    path = _noisy_video(tmp_path / "whole.mp4")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = b"\x55" * (len(content) - len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"whole\.mp4: cannot be decoded past frame \d+"):
        list(read_video(path))


def test_a_video_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = _noisy_video(tmp_path / "noread.mp4")
    monkeypatch.setattr("lstfe.data.video.av.open", refuse)
    with pytest.raises(
        VideoError, match=r"noread\.mp4: cannot be read \(Permission denied\), expected a file"
    ):
        list(read_video(path))


def test_frames_that_the_decoder_patched_up_are_counted_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Container:
        streams = SimpleNamespace(video=[SimpleNamespace(frames=3)])

        def decode(self, stream: object) -> list[SimpleNamespace]:
            return [SimpleNamespace(is_corrupt=is_corrupt) for is_corrupt in (False, True, True)]

    monkeypatch.setattr("lstfe.data.video._open", lambda *_: nullcontext(Container()))
    for _ in range(2):
        assert len(list(decode_video("scratched.mp4"))) == 3
    (record,) = caplog.records
    assert record.message.startswith("scratched.mp4: damaged, at least 2 of 3 frames were patched up")


def test_frames_come_back_in_order_and_nearly_as_written(tmp_path: Path) -> None:
    frames = _grey_frames(7)
    back = list(read_video(_write(tmp_path / "grey.mp4", frames)))
    assert len(back) == 7
    for written, read in zip(frames, back, strict=True):
        assert np.abs(written.astype(int) - read).max() <= 3


def test_a_one_frame_video_is_a_video(tmp_path: Path) -> None:
    path = _write(tmp_path / "one.mp4", _grey_frames(1), frame_rate=25)
    assert probe_video(path) == VideoInfo(width=96, height=64, num_frames=1, frame_rate=25.0)


def test_odd_sides_are_padded_to_even_ones(tmp_path: Path) -> None:
    info = probe_video(_write(tmp_path / "odd.mp4", _grey_frames(2, (33, 47))))
    assert (info.height, info.width) == (34, 48)


@pytest.mark.parametrize(
    ("turn", "corners"),  # top left, top right, bottom left, bottom right, as shown
    [
        ("none", (200, 0, 100, 50)),
        ("clockwise", (100, 200, 50, 0)),
        ("half", (50, 100, 0, 200)),
        ("counterclockwise", (0, 50, 200, 100)),
        ("mirrored", (0, 200, 50, 100)),
        ("upside_down", (100, 50, 200, 0)),
        ("transposed", (200, 100, 0, 50)),
    ],
)
def test_a_video_is_read_as_a_player_shows_it(tmp_path: Path, turn: str, corners: tuple[int, ...]) -> None:
    quarters = np.array([[200, 0], [100, 50]], np.uint8).repeat(32, axis=0).repeat(48, axis=1)
    path = turn_video(_write(tmp_path / "phone.mp4", [quarters[..., None].repeat(3, axis=2)] * 3), turn)

    info, frames = probe_video(path), list(read_video(path))

    assert (info.height, info.width) == ((96, 64) if TURNS[turn][0] == 0 else (64, 96))
    assert [frame.shape for frame in frames] == [(info.height, info.width, 3)] * info.num_frames
    shown = frames[0][[8, 8, -8, -8], [8, -8, 8, -8], 0].astype(int)
    assert np.abs(shown - corners).max() <= 3
    assert all(frame.flags.c_contiguous for frame in frames)


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    files = [_noisy_video(tmp_path / f"{copy}.mp4").read_bytes() for copy in range(6)]
    assert len(set(files)) == 1


def test_a_frame_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        VideoWriter(tmp_path / "grey.mp4", 30, (64, 96)) as video,
        pytest.raises(VideoError, match=r"frame of shape \(32, 96, 3\), expected \(64, 96, 3\)"),
    ):
        video.write(np.zeros((32, 96, 3), np.uint8))
