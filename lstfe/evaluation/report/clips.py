"""Short playable clips of misses, as bytes of an MP4."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.data.video import VideoWriter
from lstfe.evaluation.misses import Miss, draw_panel
from lstfe.evaluation.records import DetectionRecord
from lstfe.visualize import append_caption

REACH_FRAMES = 12
"""Frames shown before and after the miss, as far as the split has them."""
PLAYED_FPS = 10.0
"""Slower than life: what lasts one frame is to be seen."""
_CRF = 26  # small enough for a dozen of them in a page


def clip_around(
    miss: Miss,
    annotations: VideoAnnotations,
    records: Mapping[tuple[str, int], Sequence[DetectionRecord]],
    store: FrameStore,
) -> bytes:
    """Return an H.264 clip around the miss, boxes drawn; `records` are keyed by (video, frame_id)."""
    frame_ids = annotations.frame_ids(miss.video)
    place = frame_ids.index(miss.frame_id)
    shown = frame_ids[max(0, place - REACH_FRAMES) : place + REACH_FRAMES + 1]
    frames = []
    for frame_id in shown:
        panel = draw_panel(miss, annotations, records, store, frame_id)
        mark = "  < the miss" if frame_id == miss.frame_id else ""
        frames.append(append_caption(panel, f"frame {frame_id}{mark}", font_px=13))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with VideoWriter(path, PLAYED_FPS, (frames[0].shape[0], frames[0].shape[1]), crf=_CRF) as writer:
            for frame in frames:
                writer.write(frame)
        return path.read_bytes()
