from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.service.decoder import MEMORY_BYTES, VideoLimits
from deploy.service.decoding import DecodedVideo, VideoFacts
from lstfe.data.video import VideoError, read_video

from ...turned_video import turn_video

LIMITS = VideoLimits(max_frames=100, max_duration_s=60.0, max_side_px=1000, max_frame_px=10**6, cpu_s=60)


def refusal(path: Path, limits: VideoLimits = LIMITS) -> str:
    with DecodedVideo(path, "label", limits) as video, pytest.raises(VideoError) as caught:
        video.facts()
    message = str(caught.value)
    assert str(path.parent) not in message
    assert "\n" not in message
    return message


def test_frames_are_those_of_the_file(make_video: Callable[..., Path]) -> None:
    path = make_video(5)
    with DecodedVideo(path, "label", LIMITS) as video:
        assert video.facts() == VideoFacts(num_frames=5, width=96, height=64, frame_rate=30.0)
        pool = dict(video.pool_frames([4, 1, 1]))
        frames = list(video.frames())
    expected = list(read_video(path))
    np.testing.assert_array_equal(frames, expected)
    assert list(pool) == [1, 4]
    np.testing.assert_array_equal(pool[4], expected[4])


def test_a_phone_s_frames_are_turned_upright(make_video: Callable[..., Path]) -> None:
    path = turn_video(make_video(3), "clockwise")
    with DecodedVideo(path, "label", LIMITS) as video:
        assert video.facts() == VideoFacts(num_frames=3, width=64, height=96, frame_rate=30.0)
        assert list(video.pool_frames([])) == []
        np.testing.assert_array_equal(list(video.frames()), list(read_video(path)))


def test_without_a_pool_all_frames_come_at_once(make_video: Callable[..., Path]) -> None:
    with DecodedVideo(make_video(1), "label", LIMITS) as video:
        video.facts()
        assert list(video.pool_frames([])) == []
        assert len(list(video.frames())) == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (replace(LIMITS, max_frames=4), "longer than 4 frames"),
        (replace(LIMITS, max_duration_s=0.1), r"longer than .* or 0.1 s"),
        (replace(LIMITS, max_side_px=95), "frames of 96x64 pixels, expected at most 95 a side"),
        (replace(LIMITS, max_frame_px=96 * 64 - 1), "and 6143 in all"),
    ],
)
def test_a_video_over_a_limit_is_refused(
    make_video: Callable[..., Path], limits: VideoLimits, message: str
) -> None:
    import re

    assert re.search(message, refusal(make_video(5), limits))


@pytest.mark.parametrize("kept", [0, 10, 500, 1500])
def test_a_truncated_video_is_refused(make_video: Callable[..., Path], kept: int) -> None:
    path = make_video(20)
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(path).startswith("label: ")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{path}\n#EXT-X-ENDLIST\n"),
        ("a.txt", "ffconcat version 1.0\nfile {path}\n"),
        ("a.mp4", "ffconcat version 1.0\nfile {path}\n"),
        ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
    ],
)
def test_a_file_that_names_other_files_is_refused(
    make_video: Callable[..., Path], tmp_path: Path, name: str, content: str
) -> None:
    playlist = tmp_path / name
    playlist.write_text(content.format(path=make_video(3, name="other")))
    assert "cannot be opened" in refusal(playlist)


def test_a_decoder_that_is_killed_takes_nothing_with_it(make_video: Callable[..., Path]) -> None:
    with DecodedVideo(make_video(5), "label", LIMITS) as video:
        video.facts()
        os.kill(video._process.pid, 11)  # as a crafted file may do
        with pytest.raises(VideoError, match="label: its decoder ended with code -11; the file is damaged"):
            list(video.pool_frames([0]))


def test_stopping_ends_a_reading_with_its_reason(make_video: Callable[..., Path]) -> None:
    with DecodedVideo(make_video(90, (480, 640)), "label", LIMITS) as video:
        threading.Timer(0.05, video.stop, ("took too long",)).start()
        with pytest.raises(VideoError, match="took too long"):
            video.facts()


def test_the_decoder_does_not_know_the_environment(
    make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSTFE_SERVE_TOKENS", "a-secret-of-the-service")
    with DecodedVideo(make_video(2), "label", LIMITS) as video:
        video.facts()
        environment = Path(f"/proc/{video._process.pid}/environ")
        if not environment.exists():
            pytest.skip("this system has no /proc")
        assert b"a-secret-of-the-service" not in environment.read_bytes()


def test_a_decoders_threads_share_one_arena_within_its_bound_on_memory(
    make_video: Callable[..., Path],
) -> None:
    with DecodedVideo(make_video(2), "label", LIMITS) as video:
        video.facts()
        process = Path(f"/proc/{video._process.pid}")
        if not process.exists():
            pytest.skip("this system has no /proc")
        assert b"MALLOC_ARENA_MAX=1\0" in (process / "environ").read_bytes()
        limits = (process / "limits").read_text()
        bound = next(line for line in limits.splitlines() if line.startswith("Max address space"))
        assert str(MEMORY_BYTES) in bound
