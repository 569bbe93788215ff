"""Streaming against the training graph on the same windows; passes of the backbone; bounds of the memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lstfe.config import Config, InferenceConfig, ModelConfig
from lstfe.data.transforms import collate
from lstfe.errors import UserError
from lstfe.model.detector import LSTFENet
from lstfe.model.methods import METHODS, resolve_method
from lstfe.stream import StreamingDetector
from lstfe.types import ByteArray, Clip, ClipLayout, Detections, FrameDetections, Targets
from lstfe.window import Reservoir, long_term_pool, window_at

NUM_FRAMES = 9
MODES: dict[str, dict[str, Any]] = {
    "causal": {"lookahead": 0, "long_term_source": "past"},
    "causal with a pool": {"lookahead": 0, "long_term_source": "video"},
    "lookahead with a pool": {"lookahead": 3, "long_term_source": "video"},
    "lookahead with a reservoir": {"lookahead": 2, "long_term_source": "past"},
    "lookahead beyond the video": {"lookahead": 12, "long_term_source": "video"},
}

# Every mode for the whole network, and one mode for each of its comparators.
CASES = [("lstfe", mode) for mode in MODES]
CASES += [(method, "lookahead with a pool") for method in METHODS if method != "lstfe"]

Tiny = Callable[..., ModelConfig]
BuildModel = Callable[..., LSTFENet]


def config_of(model: ModelConfig, method: str = "lstfe", mode: str = "lookahead with a pool") -> Config:
    inference = InferenceConfig(
        num_alignment=2, alignment_gap=1, relation_range=3, num_relation=4, num_candidates=3, **MODES[mode]
    )
    return resolve_method(Config(model=replace(model, method=method), inference=inference))  # type: ignore[arg-type]


def video(num_frames: int = NUM_FRAMES, size: tuple[int, int] = (48, 72), seed: int = 0) -> list[ByteArray]:
    """A bright square that moves over a random ground which changes from frame to frame."""
    generator = np.random.default_rng(seed)
    ground = generator.integers(0, 160, (*size, 3))
    frames = []
    for index in range(num_frames):
        frame = ground + generator.integers(0, 60, (*size, 3))
        place = 3 * index % (size[1] - 12)
        frame[10:22, place : place + 12] = 250
        frames.append(frame.clip(0, 255).astype(np.uint8))
    return frames


def stream(detector: StreamingDetector, frames: list[ByteArray]) -> list[FrameDetections]:
    if detector.pool is not None:
        detector.prime({index: frames[index] for index in detector.pool})
    detections = [found for frame in frames for found in detector.push(frame)]
    return detections + detector.finish()


def candidates_of(config: Config, num_frames: int) -> list[tuple[int, ...]]:
    """Return the long-term candidates of each frame: the pool, or what a reservoir of its past holds."""
    inference = config.inference
    if inference.long_term_source == "video":
        return [long_term_pool(num_frames, inference.num_candidates)] * num_frames
    reservoir, candidates = Reservoir(inference.num_candidates, inference.seed), []
    for current in range(num_frames):
        candidates.append(reservoir.padded(current))
        reservoir.add(current)
    return candidates


@torch.no_grad()
def detections_of_clips(model: LSTFENet, config: Config, frames: list[ByteArray]) -> list[Detections]:
    """Detect each frame by the graph that trains: its window as one clip."""
    found = []
    for current, candidates in enumerate(candidates_of(config, len(frames))):
        window = window_at(current, len(frames), candidates, config.inference)
        parts = ((current,), window.alignment, window.relation, window.candidates)
        ends = np.cumsum([len(part) for part in parts]).tolist()
        layout = ClipLayout(*(tuple(range(*places)) for places in itertools.pairwise(ends)))
        indices = tuple(index for part in parts for index in part)
        pixels = torch.from_numpy(np.stack([frames[index] for index in indices])).permute(0, 3, 1, 2)
        no_targets = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
        clip = Clip(pixels, layout, no_targets, "video", indices)
        (detections,) = model(collate([clip], config.model))
        found.append(detections)
    return found


def assert_equal_detections(found: Detections, expected: Detections) -> None:
    assert found.labels.tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, rtol=1e-4, atol=1e-3)


# ---------------------------------------------------------------------------------------- empty and short


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_without_frames_ends_without_detections(
    tiny: Tiny, build_model: BuildModel, mode: str
) -> None:
    config = config_of(tiny(), mode=mode)
    assert StreamingDetector(build_model(config.model), config).finish() == []


@pytest.mark.parametrize(("method", "mode"), CASES)
def test_a_black_video_of_one_frame_is_detected_in_numbers(
    tiny: Tiny, build_model: BuildModel, method: str, mode: str
) -> None:
    config = config_of(tiny(), method, mode)
    detector = StreamingDetector(build_model(config.model), config, num_frames=1)
    (found,) = stream(detector, [np.zeros((48, 72, 3), np.uint8)])
    assert found.frame_index == 0
    assert np.isfinite(found.detections.boxes).all()
    assert np.isfinite(found.detections.scores).all()


@pytest.mark.parametrize(
    "inference",
    [
        {"num_relation": 0},
        {"num_alignment": 0},
        {"num_candidates": 0},
        {"num_relation": 0, "num_candidates": 0},
    ],
)
def test_a_detector_may_look_at_fewer_frames_than_it_was_trained_on(
    tiny: Tiny, build_model: BuildModel, inference: dict[str, int]
) -> None:
    config = config_of(tiny())
    config = replace(config, inference=replace(config.inference, **inference))
    detector = StreamingDetector(build_model(config.model), config, num_frames=NUM_FRAMES)
    assert any(len(found.detections) for found in stream(detector, video()))


def test_without_proposals_nothing_is_detected(tiny: Tiny, build_model: BuildModel) -> None:
    config = config_of(tiny(proposals={"min_size_px": 1e6}))
    detector = StreamingDetector(build_model(config.model), config, num_frames=NUM_FRAMES)
    assert [len(found.detections) for found in stream(detector, video())] == [0] * NUM_FRAMES


def test_a_frame_of_another_size_is_refused_with_both_sizes(tiny: Tiny, build_model: BuildModel) -> None:
    config = config_of(tiny(), mode="causal")
    detector = StreamingDetector(build_model(config.model), config)
    detector.push(np.zeros((48, 72, 3), np.uint8))
    with pytest.raises(UserError, match=r"frame 1 is 72x48 .* expected \(48, 72\)"):
        detector.push(np.zeros((72, 48, 3), np.uint8))


def test_a_pool_that_was_not_shown_is_refused_at_the_first_frame(tiny: Tiny, build_model: BuildModel) -> None:
    config, frames = config_of(tiny()), video()
    detector = StreamingDetector(build_model(config.model), config, num_frames=NUM_FRAMES)
    assert detector.pool == (1, 4, 7)
    with pytest.raises(UserError, match=r"frames 1, 4, 7 of the long-term pool .* call prime"):
        detector.push(frames[0])
    detector.prime({4: frames[4]})
    with pytest.raises(UserError, match="frames 1, 7 of the long-term pool"):
        detector.push(frames[0])
    detector.prime({1: frames[1], 7: frames[7]})
    assert detector.push(frames[0]) == []


# -------------------------------------------------------------------------------- train path = stream path


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_streaming_equals_the_training_graph_on_the_same_frames(
    tiny: Tiny, build_model: BuildModel, method: str, mode: str
) -> None:
    config, frames = config_of(tiny(), method, mode), video()
    model = build_model(config.model)
    found = stream(StreamingDetector(model, config, num_frames=len(frames)), frames)
    expected = detections_of_clips(model, config, frames)
    assert [one.frame_index for one in found] == list(range(len(frames)))
    assert min(len(one) for one in expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert_equal_detections(one.detections, other)


@pytest.mark.parametrize(
    "switches",
    [
        {"backbone": {"feature_stride": 16, "layer4": True, "reduce_channels": None}},
        {"alignment": {"num_blocks": 2}},
        {"alignment": {"num_blocks": 0}},
        {
            "alignment": {"kernel_size": 1},
            "pixel_aggregation": {"weights": "paper", "include_current": False},
        },
        {"pixel_aggregation": {"weights": "authors"}, "selection": {"similarity": "scaled_dot"}},
        {"selection": {"enabled": False}, "relation": {"variant": "simple"}},
        {"relation": {"gate": "additive", "value_projection": False, "enhance_current": False}},
        {"relation": {"stages": ("long_term",)}},
        {"relation": {"stages": ("short_term",)}},
    ],
    ids=str,
)
def test_streaming_equals_the_training_graph_with_other_switches(
    tiny: Tiny, build_model: BuildModel, switches: dict[str, dict[str, Any]]
) -> None:
    config, frames = config_of(tiny(**switches)), video(5)
    model = build_model(config.model)
    found = stream(StreamingDetector(model, config, num_frames=5), frames)
    for one, other in zip(found, detections_of_clips(model, config, frames), strict=True):
        assert len(other) > 0
        assert_equal_detections(one.detections, other)


def test_other_frames_of_the_video_change_the_detections_of_a_frame(
    tiny: Tiny, build_model: BuildModel
) -> None:
    # Without this the comparison above could hold for a detector that ignores time.
    config, frames = config_of(tiny()), video()
    model = build_model(config.model)
    before = stream(StreamingDetector(model, config, num_frames=NUM_FRAMES), frames)[4].detections
    others = [*video(4, seed=5), frames[4], *video(4, seed=6)]
    after = stream(StreamingDetector(model, config, num_frames=NUM_FRAMES), others)[4].detections
    assert before.scores.shape != after.scores.shape or np.abs(before.scores - after.scores).max() > 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_a_causal_detector_does_not_see_the_future(tiny: Tiny, build_model: BuildModel, method: str) -> None:
    config, frames = config_of(tiny(), method, "causal"), video()
    model = build_model(config.model)
    whole = stream(StreamingDetector(model, config), frames)
    begun = stream(StreamingDetector(model, config), frames[:5])
    for one, other in zip(begun, whole[:5], strict=True):
        assert_equal_detections(one.detections, other.detections)


def test_a_stream_of_unknown_length_takes_its_candidates_from_the_past(
    tiny: Tiny, build_model: BuildModel
) -> None:
    config = config_of(tiny(), mode="lookahead with a pool")
    past = replace(config, inference=replace(config.inference, long_term_source="past"))
    model, frames = build_model(config.model), video()
    detector = StreamingDetector(model, config)
    assert detector.pool is None
    for one, other in zip(
        stream(detector, frames), stream(StreamingDetector(model, past), frames), strict=True
    ):
        assert_equal_detections(one.detections, other.detections)


def test_detections_are_in_pixels_of_the_frame_whatever_the_size_inside(
    tiny: Tiny, build_model: BuildModel
) -> None:
    config, frames = config_of(tiny(), mode="causal"), video(2, size=(128, 192))
    found = stream(StreamingDetector(build_model(config.model), config), frames)
    boxes = np.concatenate([one.detections.boxes for one in found])
    assert boxes.min() >= 0
    assert (boxes <= np.array([192, 128, 192, 128]) + 1e-3).all()
    assert boxes.max() > 96  # the network saw 64x96


# ------------------------------------------------------------------------------- latency, passes, memory


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("causal", [1] * 9 + [0]), ("lookahead with a pool", [0] * 3 + [1] * 6 + [3])],
)
def test_a_frame_is_detected_as_soon_as_its_lookahead_is_there(
    tiny: Tiny, build_model: BuildModel, mode: str, expected: list[int]
) -> None:
    config, frames = config_of(tiny(), mode=mode), video()
    detector = StreamingDetector(build_model(config.model), config, num_frames=NUM_FRAMES)
    detector.prime({index: frames[index] for index in detector.pool or ()})
    answers = [detector.push(frame) for frame in frames] + [detector.finish()]
    assert [len(answer) for answer in answers] == expected


@pytest.mark.parametrize(("method", "mode"), CASES)
def test_every_frame_passes_the_backbone_exactly_once(
    tiny: Tiny, build_model: BuildModel, method: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny(), method, mode)
    model = build_model(config.model)
    forward: Callable[[Tensor], Tensor] = model.backbone.forward
    seen: list[int] = []

    def counted(images: Tensor) -> Tensor:
        seen.extend([hash(image.numpy().tobytes()) for image in images])
        return forward(images)

    monkeypatch.setattr(model.backbone, "forward", counted)
    stream(StreamingDetector(model, config, num_frames=NUM_FRAMES), video())
    assert len(seen) == NUM_FRAMES
    assert len(set(seen)) == NUM_FRAMES


@pytest.mark.parametrize("mode", MODES)
def test_the_support_of_a_frame_is_computed_once_and_kept_while_an_alignment_may_need_it(
    tiny: Tiny, build_model: BuildModel, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, frames = config_of(tiny(), mode=mode), video()
    model = build_model(config.model)
    assert model.alignment is not None
    prepare, num_prepared = model.alignment.prepare, []
    monkeypatch.setattr(model.alignment, "prepare", lambda maps: num_prepared.append(1) or prepare(maps))
    detector = StreamingDetector(model, config, num_frames=NUM_FRAMES)
    detector.prime({index: frames[index] for index in detector.pool or ()})
    aligned: set[int] = set()
    for pushed, frame in enumerate(frames, start=1):
        for found in detector.push(frame):
            aligned.update(window_at(found.frame_index, pushed, (), config.inference).alignment)
        later = aligned_later(config, pushed)
        kept = {index for index in range(NUM_FRAMES) if index in detector.memory}
        assert {index for index in kept if detector.memory[index].has_support} == aligned & later
    for found in detector.finish():
        aligned.update(window_at(found.frame_index, NUM_FRAMES, (), config.inference).alignment)
    assert len(num_prepared) == len(aligned)


def aligned_later(config: Config, pushed: int) -> set[int]:
    """Return the frames that may be aligned after `pushed` frames, whatever the length of the video."""
    done = max(0, pushed - config.inference.lookahead)
    windows = (
        window_at(current, length, (), config.inference)
        for length in range(pushed, pushed + 20)
        for current in range(done, length)
    )
    return {index for window in windows for index in window.alignment}


def longest_memory(build_model: BuildModel, config: Config, num_frames: int) -> int:
    frames = video(8, size=(32, 32))
    detector = StreamingDetector(build_model(config.model), config, num_frames=num_frames)
    detector.prime({index: frames[index % 8] for index in detector.pool or ()})
    longest = 0
    for index in range(num_frames):
        detector.push(frames[index % 8])
        longest = max(longest, len(detector.memory))
    detector.finish()
    return longest


def miniature(tiny: Tiny, mode: str) -> Config:
    """Return the smallest network with all parts, for long videos."""
    model = tiny(
        backbone={"feature_channels": 8, "feature_stride": 16},
        proposals={"anchor_sizes": (16.0,), "current_top_k": 2, "reference_top_k": 2},
        relation={"stages": ("long_term", "short_term")},
    )
    return config_of(replace(model, image_short_side=32, image_long_side=32), mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_no_more_than_the_window_and_its_candidates_is_remembered(
    tiny: Tiny, build_model: BuildModel, mode: str
) -> None:
    config = miniature(tiny, mode)
    inference = config.inference
    reach = max(inference.relation_range, inference.num_alignment * inference.alignment_gap)
    longest = longest_memory(build_model, config, 60)
    assert reach < longest <= reach + 1 + inference.lookahead + inference.num_candidates


def test_memory_is_no_longer_after_600_frames_than_after_60(tiny: Tiny, build_model: BuildModel) -> None:
    config = miniature(tiny, "lookahead with a reservoir")
    assert longest_memory(build_model, config, 600) == longest_memory(build_model, config, 60)
