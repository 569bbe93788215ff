"""Streaming detection over graphs, without PyTorch: the twin of `lstfe.stream.StreamingDetector`.

Which frames a detection needs, and for how long, is said by `lstfe.window.StreamSchedule`, for both alike.
What is kept of a frame lies in slots of fixed memory on a `Device`: the host with ONNX Runtime, or a GPU with
TensorRT. One code path serves all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.device import Device, Graphs, HostDevice, Staging
from deploy.frame_memory import Descriptors, Slots, Stored
from deploy.graphs import GraphSizes, graphs_of
from lstfe.config import Config
from lstfe.errors import UserError
from lstfe.types import ByteArray, Detections, FloatArray, FrameDetections
from lstfe.window import StreamSchedule, Window, num_alignment_slots, num_frame_slots

# torch.nn.functional.cosine_similarity's guard against a zero vector.
_COSINE_EPS = np.float32(1e-8)


@dataclass(frozen=True, slots=True)
class Maps:
    """What is read off a feature map: the inputs of the proposals and roi graphs."""

    roi_map: Stored
    objectness: Stored
    box_deltas: Stored


@dataclass(frozen=True, slots=True)
class Summary:
    """Proposals of a frame: features (1, K, D), boxes (1, K, 4), valid (1, K)."""

    features: Stored
    boxes: Stored
    valid: Stored


class StreamRuntime:
    """Detect objects in one video or live stream, frame by frame."""

    def __init__(
        self, graphs: Graphs | Device[Any], config: Config, *, num_frames: int | None = None
    ) -> None:
        """`config` has its method resolved; `num_frames` is the video's length, None for a live stream."""
        self.device: Device[Any] = graphs if isinstance(graphs, Device) else HostDevice(graphs)
        """Where everything runs; another one around it may take its place before the first frame."""
        self._config = config
        self._sizes = GraphSizes.of(config)
        self._schedule = StreamSchedule(config.inference, num_frames)
        by_name = {graph.name: graph for graph in graphs_of(config, self.device.form)}
        self._align_inputs = by_name["align"].inputs[1:] if "align" in by_name else ()
        num_slots = num_frame_slots(config.inference)
        self._frames = Slots(num_slots, "frames")
        self._summaries = Slots(num_slots, "proposals")
        self._support = Slots(num_alignment_slots(config.inference), "alignment")
        self._descriptors = Descriptors(num_slots)
        self._selects = self._sizes.num_long_term > 0 and config.model.selection.enabled
        self._pushed = 0
        self._frame_size: tuple[int, int] | None = None
        self._uploaded: dict[tuple[str, str], Stored] = {}
        self._results: list[Staging] = []

    @property
    def pool(self) -> tuple[int, ...] | None:
        """Frame indices wanted by `prime`, or None where candidates come from the past."""
        return self._schedule.pool

    @property
    def num_remembered(self) -> int:
        """Frames whose state is kept; it has a bound that does not depend on the stream's length."""
        return len(self._frames)

    def prime(self, frames: Mapping[int, ByteArray]) -> None:
        """Take the pool's frames, (H, W, 3) uint8 RGB by frame index, before the stream starts."""
        with self.device.active():
            for frame_index in sorted(set(self.pool or ()) & frames.keys()):
                self._remember(frame_index, frames[frame_index])

    def push(self, frame: ByteArray) -> list[FrameDetections]:
        """Take the next frame, (H, W, 3) uint8 RGB, and return the detections that it completes.

        UserError where the pool was not primed, or the frame's size differs from that of the frames before.
        """
        if self._pushed == 0:
            self._schedule.require_pool(self._frames)
        with self.device.active():
            self._remember(self._pushed, frame)
            self._pushed += 1
            return self._detect(self._schedule.push())

    def finish(self) -> list[FrameDetections]:
        """End the stream and return the detections of the last frames; no frame may follow."""
        with self.device.active():
            detections = self._detect(self._schedule.finish())
            self.device.close()
        return detections

    def _remember(self, frame_index: int, frame: ByteArray) -> None:
        size = (frame.shape[0], frame.shape[1])
        if self._frame_size not in (None, size):
            raise UserError(
                f"frame {frame_index} is {size[0]}x{size[1]} pixels (height x width), expected "
                f"{self._frame_size} like the frames before; split the video where its size changes"
            )
        if frame_index in self._frames:  # a pool frame has passed the backbone already
            return
        image, image_size = self.device.preprocess(frame)
        if self._frame_size is None:
            self._frame_size = size
            self._upload_sizes(image_size, size)
        features, *maps, descriptor = self.device.run("backbone", image)
        # Features wait as (1, 1, C, h, w), to be lined up with those of other frames.
        shapes = [(1, *features.shape), *(array.shape for array in maps)]
        self._frames.take(frame_index, self.device, [features, *maps], shapes)
        if self._selects:
            self._descriptors.take(frame_index, self.device, descriptor)

    def _upload_sizes(self, image_size: tuple[int, int], original_size: tuple[int, int]) -> None:
        """Bring the sizes of the stream's frames to the device, once."""
        wanted = {
            ("proposals", "image_size"): image_size,
            ("decode", "image_size"): image_size,
            ("decode", "original_size"): original_size,
        }
        self._uploaded = {
            (name, tensor): self.device.upload(name, tensor, np.array(values, np.int64))
            for (name, tensor), values in wanted.items()
        }

    def _detect(self, windows: list[Window]) -> list[FrameDetections]:
        detections = [FrameDetections(window.current, self._detect_window(window)) for window in windows]
        for slots in (self._frames, self._summaries):
            slots.keep(self._schedule.needed)
        self._descriptors.keep(self._schedule.needed)
        return detections

    def _detect_window(self, window: Window) -> Detections:
        # Graphs overwrite their outputs: what is kept of other frames is computed first, and put away.
        related = window.relation if self._sizes.num_relation else ()
        long_term = self._select(window) if self._sizes.num_long_term else ()
        self._summarise_frames((*related, *long_term))
        current = self._summarise(self._enhanced(window), self._sizes.num_proposals)
        references: list[list[Stored]] = []
        for frames in (related, long_term):
            if frames:
                references += self._lined_up(self._summaries, frames)
        logits, deltas = self.device.run(
            "relation", current.features, current.boxes, current.valid, *references
        )
        return self._decode(logits, deltas, current)

    def _enhanced(self, window: Window) -> Maps:
        features, *maps = self._frames[window.current]
        if not self._align_inputs:
            return Maps(*maps)
        if self.device.form == "commuted":
            self._keep_support(window.alignment)
        stored = {"short_term_features": self._lined_up(self._frames, window.alignment)[0]}
        if self.device.form == "commuted":
            names = ("short_term_support_maps", "short_term_offset_response")
            stored |= zip(names, self._lined_up(self._support, window.alignment), strict=True)
        inputs = [stored[name] for name in self._align_inputs]
        return Maps(*self.device.run("align", self._without_lead(features), *inputs))

    def _keep_support(self, frame_indices: Sequence[int]) -> None:
        """Compute what alignment needs of these frames where it is not there, and drop what no later one needs."""
        self._support.keep(lambda index: index >= min(frame_indices))  # windows only move on
        for index in frame_indices:
            if index not in self._support:
                arrays = self.device.run("support", self._without_lead(self._frames[index][0]))
                shapes = [(1, *array.shape) for array in arrays]
                self._support.take(index, self.device, arrays, shapes)

    def _without_lead(self, features: Stored) -> Stored:
        """Return features as a graph takes those of one frame: (1, 1, C, h, w) -> (1, C, h, w)."""
        return self.device.reshape(features, features.shape[1:])

    def _summarise(self, maps: Maps, top_k: int) -> Summary:
        image_size = self._uploaded["proposals", "image_size"]
        found = self.device.run("proposals", maps.objectness, maps.box_deltas, image_size)
        boxes, valid = (self.device.head(array, top_k) for array in found)
        (features,) = self.device.run("roi", maps.roi_map, boxes)
        return Summary(features, boxes, valid)

    def _summarise_frames(self, frame_indices: Sequence[int]) -> None:
        """Compute the proposals of these frames where they are not there."""
        for index in frame_indices:
            if index not in self._summaries:
                summary = self._summarise(Maps(*self._frames[index][1:]), self._sizes.num_reference_proposals)
                arrays = [summary.features, summary.boxes, summary.valid]
                self._summaries.take(index, self.device, arrays, [array.shape for array in arrays])

    def _lined_up(self, slots: Slots, frame_indices: Sequence[int]) -> list[list[Stored]]:
        """Return, for each array that the slots hold of a frame, those of several frames."""
        return [list(arrays) for arrays in zip(*(slots[index] for index in frame_indices), strict=True)]

    def _select(self, window: Window) -> tuple[int, ...]:
        """Keep the candidates least similar to the current frame (paper eq. 3-4), ties to the earlier one."""
        selection, number = self._config.model.selection, self._sizes.num_long_term
        if not selection.enabled:
            return window.candidates[:number]
        current = self._descriptors[window.current][0]
        descriptors = np.concatenate([self._descriptors[index] for index in window.candidates])  # (L, E)
        similarities = similarity(current, descriptors, selection.similarity)
        return tuple(
            window.candidates[place] for place in np.argsort(similarities, kind="stable")[:number].tolist()
        )

    def _decode(self, logits: Stored, deltas: Stored, current: Summary) -> Detections:
        sizes = [self._uploaded["decode", name] for name in ("image_size", "original_size")]
        found = self.device.run("decode", logits, deltas, current.boxes, current.valid, *sizes)
        if not self._results:
            self._results = [self.device.staging(array) for array in found]
        for staging, array in zip(self._results, found, strict=True):
            staging.fill(array)
        boxes, scores, labels = (staging.read() for staging in self._results)
        present = scores > 0
        return Detections(
            boxes[present].astype(np.float32, copy=False),
            scores[present].astype(np.float32, copy=False),
            labels[present].astype(np.int64, copy=False),
        )


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
