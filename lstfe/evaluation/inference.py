"""Stream the videos of a prepared split through the detector, as it will run when deployed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lstfe.config import Config
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.errors import UserError
from lstfe.evaluation.protocols import score
from lstfe.evaluation.records import DetectionRecord, to_records
from lstfe.model.detector import LSTFENet
from lstfe.stream import StreamingDetector
from lstfe.types import FrameDetections

ReportProgress = Callable[[int, int], None]
"""(frames detected, frames in all)."""


def detect_split(
    model: LSTFENet,
    config: Config,
    annotations: VideoAnnotations,
    store: FrameStore,
    *,
    max_frames: int | None = None,
    progress: ReportProgress | None = None,
) -> list[DetectionRecord]:
    """Detect on the frames of a split, video by video; `max_frames` shortens videos as `frames_to_stream` says."""
    stretches = frames_to_stream(annotations, max_frames)
    found = detect_videos(model, config, annotations, store, stretches, progress=progress)
    return [record for _, records in found for record in records]


def detect_videos(
    model: LSTFENet,
    config: Config,
    annotations: VideoAnnotations,
    store: FrameStore,
    stretches: Mapping[str, Sequence[int]],
    *,
    progress: ReportProgress | None = None,
) -> Iterator[tuple[str, list[DetectionRecord]]]:
    """Yield what is found in each video's frames, on the device that the model is on.

    Each video is a stream of the split's own frames: where a split begins in the middle of a video, so does
    the stream. The model's mode is left as it was.
    """
    if model.head.num_classes != len(annotations.label_names) + 1:
        raise UserError(
            f"{store.directory.parent}: this split has {len(annotations.label_names)} categories, expected "
            f"{model.head.num_classes - 1} as in the training; train on this data set first"
        )
    total, done = sum(len(frame_ids) for frame_ids in stretches.values()), 0
    was_training = model.training
    try:
        for video, frame_ids in stretches.items():
            records: list[DetectionRecord] = []
            for found in _detect_video(model, config, store, video, frame_ids):
                records += to_records(
                    found.detections,
                    video=video,
                    frame_id=frame_ids[found.frame_index],
                    label_names=annotations.label_names,
                )
                done += 1
                if progress is not None:
                    progress(done, total)
            yield video, records
    finally:
        model.train(was_training)


def score_split(
    model: LSTFENet,
    config: Config,
    annotations: VideoAnnotations,
    store: FrameStore,
    *,
    split: str,
    max_frames: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Detect on a split and score what was streamed by `config.evaluate.protocols`: see `protocols.score`."""
    records = detect_split(model, config, annotations, store, max_frames=max_frames)
    return score(
        annotations,
        records,
        config.evaluate.protocols,
        frame_stride=config.evaluate.frame_stride,
        split=split,
        frames=frames_to_stream(annotations, max_frames),
    )


def frames_to_stream(annotations: VideoAnnotations, max_frames: int | None = None) -> dict[str, list[int]]:
    """Return the frame_ids to stream, by video: all, or at most `max_frames` in all.

    The frames are shared evenly: each video gives one unbroken stretch from its middle, and what a short
    video cannot give is taken from the longer ones. A video left without a frame is not in the result.
    """
    frame_ids = {video: annotations.frame_ids(video) for video in annotations.images_by_video}
    if max_frames is None:
        return {video: ids for video, ids in frame_ids.items() if ids}
    shares = _even_shares([len(ids) for ids in frame_ids.values()], max_frames)
    stretches = {}
    for (video, ids), share in zip(frame_ids.items(), shares, strict=True):
        if share:
            start = (len(ids) - share) // 2
            stretches[video] = ids[start : start + share]
    return stretches


def _even_shares(lengths: Sequence[int], total: int) -> list[int]:
    """Share `total` out, never more than a length: [2, 9, 9], 10 -> [2, 4, 4]."""
    shares = [0] * len(lengths)
    shortest_first = sorted(range(len(lengths)), key=lambda place: lengths[place])
    for done, place in enumerate(shortest_first):
        shares[place] = min(lengths[place], total // (len(lengths) - done))
        total -= shares[place]
    return shares


def _detect_video(
    model: LSTFENet, config: Config, store: FrameStore, video: str, frame_ids: Sequence[int]
) -> Iterator[FrameDetections]:
    device = next(model.parameters()).device
    detector = StreamingDetector(model, config, num_frames=len(frame_ids), device=device)
    if detector.pool is not None:
        detector.prime({index: store.read(video, frame_ids[index]) for index in detector.pool})
    for frame_id in frame_ids:
        yield from detector.push(store.read(video, frame_id))
    yield from detector.finish()
