"""Streaming a split: the right frames in the right order, and records that say so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from lstfe.config import Config, EvaluateConfig, InferenceConfig, ModelConfig
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.data.prepared import load_split
from lstfe.errors import UserError
from lstfe.evaluation import inference
from lstfe.evaluation.inference import detect_split, frames_to_stream, score_split
from lstfe.evaluation.records import scored_frames
from lstfe.model.detector import LSTFENet
from lstfe.stream import StreamingDetector
from lstfe.types import ByteArray, Detections, FrameDetections


class RecordingDetector:
    """Stands in for StreamingDetector: remembers what it is shown, answers one frame late."""

    streams: list[RecordingDetector] = []  # noqa: RUF012

    def __init__(self, model: LSTFENet, config: Config, *, num_frames: int, device: object) -> None:
        self.num_frames = num_frames
        self.pool: tuple[int, ...] | None = (0, num_frames - 1, num_frames - 1)
        self.primed: dict[int, int] = {}
        self.pushed: list[int] = []
        model.eval()
        RecordingDetector.streams.append(self)

    def prime(self, frames: Mapping[int, ByteArray]) -> None:
        self.primed = {index: frame_number(frame) for index, frame in frames.items()}

    def push(self, frame: ByteArray) -> list[FrameDetections]:
        self.pushed.append(frame_number(frame))
        return self._answer(len(self.pushed) - 2) if len(self.pushed) > 1 else []

    def finish(self) -> list[FrameDetections]:
        return self._answer(len(self.pushed) - 1)

    def _answer(self, index: int) -> list[FrameDetections]:
        box = np.array([[1, 2, 4, 6]], np.float32)
        return [FrameDetections(index, Detections(box, np.array([0.5], np.float32), np.array([1])))]


def frame_number(frame: ByteArray) -> int:
    """The corner of a test frame is ten times its number in the red channel."""
    return round(int(frame[0, 0, 0]) / 10)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[RecordingDetector]:
    monkeypatch.setattr(inference, "StreamingDetector", RecordingDetector)
    monkeypatch.setattr(RecordingDetector, "streams", [])
    return RecordingDetector.streams


@pytest.fixture(scope="module")
def config(tiny: Callable[..., ModelConfig]) -> Config:
    """Few frames a window, and three detections a frame whatever their scores."""
    inference = InferenceConfig(
        lookahead=2, num_alignment=2, alignment_gap=1, relation_range=2, num_relation=2, num_candidates=2
    )
    head = {"detections_per_frame": 3, "score_threshold": 0.0}
    return Config(model=tiny(head=head), inference=inference)


@pytest.fixture(scope="module")
def model(config: Config) -> LSTFENet:
    torch.manual_seed(0)
    return LSTFENet(config.model, num_classes=2)


def test_every_frame_of_every_video_is_streamed_in_order(
    streams: list[RecordingDetector], model: LSTFENet, config: Config, prepared_dir: Path
) -> None:
    records = detect_split(model, config, *load_split(prepared_dir, "val"))
    assert [stream.pushed for stream in streams] == [list(range(5)), list(range(9))]
    assert [(record.video, record.frame_id) for record in records] == [
        *(("left", i) for i in range(5)),
        *(("right", i) for i in range(9)),
    ]
    assert records[0].bbox == (1.0, 2.0, 3.0, 4.0)


def test_a_split_that_begins_in_mid_video_streams_and_primes_its_own_frames(
    streams: list[RecordingDetector], model: LSTFENet, config: Config, prepared_dir: Path
) -> None:
    records = detect_split(model, config, *load_split(prepared_dir, "test"))
    assert [stream.pushed for stream in streams] == [[2, 3, 4], [4, 5, 6, 7, 8]]
    assert [stream.primed for stream in streams] == [{0: 2, 2: 4}, {0: 4, 4: 8}]
    assert [record.frame_id for record in records] == [2, 3, 4, 4, 5, 6, 7, 8]


def test_progress_counts_to_all_frames(
    streams: list[RecordingDetector], model: LSTFENet, config: Config, prepared_dir: Path
) -> None:
    seen: list[tuple[int, int]] = []
    detect_split(
        model,
        config,
        *load_split(prepared_dir, "val"),
        max_frames=6,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_left_as_it_was(
    streams: list[RecordingDetector], model: LSTFENet, config: Config, prepared_dir: Path, training: bool
) -> None:
    model.train(training)
    detect_split(model, config, *load_split(prepared_dir, "val"), max_frames=2)
    assert model.training is training


def test_a_split_with_other_categories_than_the_training_is_refused(
    config: Config, prepared_dir: Path
) -> None:
    with pytest.raises(UserError, match="this split has 1 categories, expected 2 as in the training"):
        detect_split(LSTFENet(config.model, num_classes=3), config, *load_split(prepared_dir, "val"))


def test_no_frames_allowed_means_no_streams(annotations: VideoAnnotations) -> None:
    assert frames_to_stream(annotations, 0) == {}


@pytest.mark.parametrize(
    ("max_frames", "expected"),
    [
        (1, {"right": [4]}),
        (4, {"left": [1, 2], "right": [3, 4]}),
        (12, {"left": [0, 1, 2, 3, 4], "right": [1, 2, 3, 4, 5, 6, 7]}),
        (99, {"left": [0, 1, 2, 3, 4], "right": [0, 1, 2, 3, 4, 5, 6, 7, 8]}),
    ],
)
def test_few_frames_are_shared_evenly_from_the_middle_of_the_videos(
    annotations: VideoAnnotations, max_frames: int, expected: dict[str, list[int]]
) -> None:
    assert frames_to_stream(annotations, max_frames) == expected


def test_scores_of_a_shortened_split_count_only_its_frames(
    streams: list[RecordingDetector], model: LSTFENet, config: Config, prepared_dir: Path
) -> None:
    scores = score_split(model, config, *load_split(prepared_dir, "val"), split="val", max_frames=6)
    assert list(scores) == ["coco", "voc07"]
    assert scores["coco"]["num_frames"] == scores["coco"]["num_ground_truths"] == 6
    assert scores["coco"]["split"] == "val"


def test_the_stride_thins_the_scoring_not_the_stream(
    streams: list[RecordingDetector], model: LSTFENet, config: Config, prepared_dir: Path
) -> None:
    strided = dataclasses.replace(config, evaluate=EvaluateConfig(frame_stride=2, protocols=("voc07",)))
    scores = score_split(model, strided, *load_split(prepared_dir, "val"), split="val")
    assert [len(stream.pushed) for stream in streams] == [5, 9]
    assert scores["voc07"]["num_frames"] == 8
    assert scores["voc07"]["frame_stride"] == 2


def test_the_real_detector_gives_scorable_records_equal_to_its_own_stream(
    model: LSTFENet, config: Config, prepared_dir: Path, annotations: VideoAnnotations
) -> None:
    records = detect_split(model, config, *load_split(prepared_dir, "val"), max_frames=10)
    left = [record for record in records if record.video == "left"]
    detector, store = StreamingDetector(model, config, num_frames=5), FrameStore(prepared_dir / "frames")
    assert detector.pool is not None
    detector.prime({index: store.read("left", index) for index in detector.pool})
    found = [answer for i in range(5) for answer in detector.push(store.read("left", i))] + detector.finish()
    expected = np.concatenate([answer.detections.scores for answer in found])
    assert len(expected) > 0
    assert [record.score for record in left] == pytest.approx(expected.tolist(), abs=1e-5)
    assert len(scored_frames(annotations, records).detections) == len(records)
