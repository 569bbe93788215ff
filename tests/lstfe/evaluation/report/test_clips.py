"""Clips of misses: the right frames, with boxes, as H.264."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.data.video import read_video
from lstfe.evaluation.misses import PANEL_PX, Miss
from lstfe.evaluation.records import DetectionRecord
from lstfe.evaluation.report import clips
from lstfe.evaluation.report.clips import PLAYED_FPS, clip_around

MISS = Miss("missed", "right", 4, (36.0, 24.0, 14.0, 10.0), "drone", None)


def reds(clip: bytes, folder: Path) -> list[float]:
    """Median red of each frame's ground: 10 times its number in the fixture, what rises slowly a little late."""
    (folder / "clip.mp4").write_bytes(clip)
    frames = list(read_video(folder / "clip.mp4"))
    return [float(np.median(frame[PANEL_PX - 60 : PANEL_PX - 20, :, 0])) for frame in frames]


def test_a_clip_at_the_ends_of_a_video_is_as_long_as_the_video(
    annotations: VideoAnnotations, prepared_dir: Path, tmp_path: Path
) -> None:
    clip = clip_around(MISS, annotations, {}, FrameStore(prepared_dir / "frames"))
    found = reds(clip, tmp_path)
    assert len(found) == 9
    assert found == sorted(found)
    assert found[0] == pytest.approx(0, abs=4)


def test_a_clip_reaches_so_many_frames_before_and_after(
    annotations: VideoAnnotations, prepared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "REACH_FRAMES", 2)
    clip = clip_around(MISS, annotations, {}, FrameStore(prepared_dir / "frames"))
    found = reds(clip, tmp_path)
    assert len(found) == 5
    assert found[:2] == pytest.approx([20, 30], abs=4)


def test_a_clip_is_h264_that_browsers_play_and_always_the_same(
    annotations: VideoAnnotations, prepared_dir: Path, tmp_path: Path
) -> None:
    record = DetectionRecord("right", 4, (10.0, 10.0, 9.0, 9.0), 0.8, "drone")
    store = FrameStore(prepared_dir / "frames")
    first, second = (clip_around(MISS, annotations, {("right", 4): [record]}, store) for _ in range(2))
    assert first == second
    (tmp_path / "clip.mp4").write_bytes(first)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == PLAYED_FPS
        assert stream.width == PANEL_PX
