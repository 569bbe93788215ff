"""Streaming detection over graphs, without PyTorch: the twin of `lstfe.stream.StreamingDetector`.

Which frames a detection needs, and for how long, is said by `lstfe.window.StreamSchedule`, for both alike.
What is kept of a frame are arrays; what runs the graphs of `deploy.graphs` (ONNX Runtime today) stands below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deploy.graphs import GraphSizes
from lstfe.config import Config
from lstfe.errors import UserError
from lstfe.types import ByteArray, Detections, FloatArray, FrameDetections
from lstfe.window import StreamSchedule, Window

Array = npt.NDArray[Any]
# torch.nn.functional.cosine_similarity's guard against a zero vector.
_COSINE_EPS = np.float32(1e-8)


class Graphs(Protocol):
    """Something that runs graphs by name, inputs and outputs as `deploy.graphs.graphs_of` lists them."""

    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph once."""


@dataclass(slots=True)
class Maps:
    """What is read off a feature map: the inputs of the proposals and roi graphs."""

    roi_map: Array
    objectness: Array
    box_deltas: Array


@dataclass(slots=True)
class Summary:
    """Proposals of a frame: features (1, K, D), boxes (1, K, 4), valid (1, K)."""

    features: Array
    boxes: Array
    valid: Array


@dataclass(slots=True)
class FrameState:
    """What is remembered of one frame."""

    features: Array
    """(1, C, h, w)."""
    maps: Maps
    descriptor: Array
    """(E,) g(F) of the frame selection."""
    image_size: Array
    """(2,) height and width before the padding."""
    summary: Summary | None = None
    """Its best P proposals, computed when first asked for."""


class StreamRuntime:
    """Detect objects in one video or live stream, frame by frame."""

    def __init__(self, graphs: Graphs, config: Config, *, num_frames: int | None = None) -> None:
        """`config` has its method resolved; `num_frames` is the video's length, None for a live stream."""
        self._graphs = graphs
        self._config = config
        self._sizes = GraphSizes.of(config)
        self._schedule = StreamSchedule(config.inference, num_frames)
        self._memory: dict[int, FrameState] = {}
        self._pushed = 0
        self._frame_size: tuple[int, int] | None = None

    @property
    def pool(self) -> tuple[int, ...] | None:
        """Frame indices wanted by `prime`, or None where candidates come from the past."""
        return self._schedule.pool

    @property
    def num_remembered(self) -> int:
        """Frames whose state is kept; it has a bound that does not depend on the stream's length."""
        return len(self._memory)

    def prime(self, frames: Mapping[int, ByteArray]) -> None:
        """Take the pool's frames, (H, W, 3) uint8 RGB by frame index, before the stream starts."""
        for frame_index, frame in frames.items():
            self._remember(frame_index, frame)

    def push(self, frame: ByteArray) -> list[FrameDetections]:
        """Take the next frame, (H, W, 3) uint8 RGB, and return the detections that it completes.

        UserError where the pool was not primed, or the frame's size differs from that of the frames before.
        """
        if self._pushed == 0:
            self._schedule.require_pool(self._memory)
        self._remember(self._pushed, frame)
        self._pushed += 1
        return self._detect(self._schedule.push())

    def finish(self) -> list[FrameDetections]:
        """End the stream and return the detections of the last frames."""
        return self._detect(self._schedule.finish())

    def _remember(self, frame_index: int, frame: ByteArray) -> None:
        size = (frame.shape[0], frame.shape[1])
        if self._frame_size not in (None, size):
            raise UserError(
                f"frame {frame_index} is {size[0]}x{size[1]} pixels (height x width), expected "
                f"{self._frame_size} like the frames before; split the video where its size changes"
            )
        self._frame_size = size
        if frame_index in self._memory:  # a pool frame has passed the backbone already
            return
        image, image_size = self._graphs.run("preprocess", np.ascontiguousarray(frame))
        features, *maps, descriptor = self._graphs.run("backbone", image)
        self._memory[frame_index] = FrameState(features, Maps(*maps), descriptor[0], image_size)

    def _detect(self, windows: list[Window]) -> list[FrameDetections]:
        detections = [FrameDetections(window.current, self._detect_window(window)) for window in windows]
        for frame_index in [index for index in self._memory if not self._schedule.needed(index)]:
            del self._memory[frame_index]
        return detections

    def _detect_window(self, window: Window) -> Detections:
        state = self._memory[window.current]
        maps = self._enhance(state, window)
        current = self._summarise(maps, state.image_size, self._sizes.num_proposals)
        references: list[Array] = []
        if self._sizes.num_relation:
            references += self._joined(window.relation)
        if self._sizes.num_long_term:
            references += self._joined(self._select(state, window.candidates))
        logits, deltas = self._graphs.run(
            "relation", current.features, current.boxes, current.valid, *references
        )
        return self._decode(logits, deltas, current, state.image_size)

    def _enhance(self, state: FrameState, window: Window) -> Maps:
        if not self._sizes.num_alignment:
            return state.maps
        short_term = np.stack(
            [self._memory[index].features for index in window.alignment], axis=1
        )  # (1, S, C, h, w)
        return Maps(*self._graphs.run("align", state.features, short_term))

    def _summarise(self, maps: Maps, image_size: Array, top_k: int) -> Summary:
        boxes, valid = self._graphs.run("proposals", maps.objectness, maps.box_deltas, image_size)
        boxes, valid = boxes[:, :top_k], valid[:, :top_k]
        (features,) = self._graphs.run("roi", maps.roi_map, boxes)
        return Summary(features, boxes, valid)

    def _joined(self, frame_indices: Sequence[int]) -> list[Array]:
        """Line the proposals of several frames up: (1, frames * P, ...) features, boxes, valid."""
        summaries = []
        for index in frame_indices:
            state = self._memory[index]
            if state.summary is None:
                top_k = self._sizes.num_reference_proposals
                state.summary = self._summarise(state.maps, state.image_size, top_k)
            summaries.append(state.summary)
        return [
            np.concatenate([getattr(summary, part) for summary in summaries], axis=1)
            for part in ("features", "boxes", "valid")
        ]

    def _select(self, state: FrameState, candidates: Sequence[int]) -> list[int]:
        """Keep the candidates least similar to the current frame (paper eq. 3-4), ties to the earlier one."""
        selection, number = self._config.model.selection, self._sizes.num_long_term
        if not selection.enabled:
            return list(candidates[:number])
        descriptors = np.stack([self._memory[index].descriptor for index in candidates])  # (L, E)
        similarities = similarity(state.descriptor, descriptors, selection.similarity)
        return [candidates[place] for place in np.argsort(similarities, kind="stable")[:number]]

    def _decode(self, logits: Array, deltas: Array, current: Summary, image_size: Array) -> Detections:
        original_size = np.array(self._frame_size, np.int64)
        boxes, scores, labels = self._graphs.run(
            "decode", logits, deltas, current.boxes, current.valid, image_size, original_size
        )
        found = scores > 0
        return Detections(boxes[found], scores[found], labels[found])


def similarity(current: FloatArray, candidates: FloatArray, kind: str) -> FloatArray:
    """Return how alike the candidates are to the current frame: (E,), (L, E) -> (L,)."""
    similarities: FloatArray = (candidates * current).sum(axis=1, dtype=np.float32)
    if kind == "scaled_dot":
        similarities /= np.sqrt(len(current), dtype=np.float32)
    else:
        similarities /= _length(candidates) * _length(current)
    return similarities


def _length(descriptors: FloatArray) -> FloatArray:
    lengths: FloatArray = np.maximum(np.linalg.norm(descriptors, axis=-1), _COSINE_EPS)
    return lengths
