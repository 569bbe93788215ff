"""Streaming detection in PyTorch: frames go in one by one, detections come out, memory stays bounded.

Every frame passes the backbone exactly once. What later frames need of it is kept in the FrameMemory, and dropped
as soon as no window can reach it any more. The graph is the one that trains: same modules, same frames, same
detections as `LSTFENet.forward` on the window's clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from lstfe.config import Config
from lstfe.data.transforms import pad_to_one_size, to_model_input
from lstfe.errors import UserError
from lstfe.model.alignment import SupportMaps
from lstfe.model.detector import LSTFENet
from lstfe.model.relation import RelatedProposals
from lstfe.types import ByteArray, FrameDetections
from lstfe.window import StreamSchedule, Window


class FrameState:
    """What is remembered of one frame; parts are computed when first asked for."""

    def __init__(self, model: LSTFENet, features: Tensor, image_size: tuple[int, int]) -> None:
        self.features = features
        """(1, C, h, w)."""
        self.image_size = image_size
        self._model = model
        self._descriptor: Tensor | None = None
        self._support: SupportMaps | None = None
        self._summary: RelatedProposals | None = None

    @property
    def summary(self) -> RelatedProposals:
        """Proposals of the frame and their features, as a reference: (1, P, ...)."""
        if self._summary is None:
            self._summary = self._model.summarise(self.features[:, None], [self.image_size])
        return self._summary

    @property
    def support(self) -> SupportMaps:
        """The once-per-frame part of its alignment onto other frames: (1, 1, ...)."""
        if self._support is None:
            assert self._model.alignment is not None
            self._support = self._model.alignment.prepare(self.features[:, None])
        return self._support

    @property
    def has_support(self) -> bool:
        """Whether `support` is computed and kept."""
        return self._support is not None

    def drop_support(self) -> None:
        """Free `support`: K*K times the size of `features`, for when no later alignment needs it."""
        self._support = None

    @property
    def descriptor(self) -> Tensor:
        """g(F) of the frame selection: (1, E)."""
        if self._descriptor is None:
            self._descriptor = self._model.descriptor(self.features)
        return self._descriptor


class FrameMemory:
    """The states of the frames that some later window may still need, by frame index."""

    def __init__(self) -> None:
        self._states: dict[int, FrameState] = {}

    def __contains__(self, frame_index: object) -> bool:
        return frame_index in self._states

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, frame_index: int) -> FrameState:
        return self._states[frame_index]

    def keep(self, frame_index: int, state: FrameState) -> None:
        """Remember one frame."""
        self._states[frame_index] = state

    def forget_all_but(self, schedule: StreamSchedule) -> None:
        """Drop every frame that no later window can reach, and of the others what only alignment needs."""
        for frame_index in [index for index in self._states if not schedule.needed(index)]:
            del self._states[frame_index]
        for frame_index, state in self._states.items():
            if not schedule.needed_for_alignment(frame_index):
                state.drop_support()


class StreamingDetector:
    """Detect objects in one video or live stream, frame by frame.

    With `num_frames` known and `inference.long_term_source: video`, `pool` names the frames that serve as
    long-term candidates: show them with `prime` before the first `push`. Otherwise candidates come from the past.
    """

    def __init__(
        self,
        model: LSTFENet,
        config: Config,
        *,
        num_frames: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._model = model.to(device).eval()
        self._config = config
        self._device = torch.device(device)
        self._schedule = StreamSchedule(config.inference, num_frames)
        self.memory = FrameMemory()
        self._pushed = 0
        self._frame_size: tuple[int, int] | None = None

    @property
    def pool(self) -> tuple[int, ...] | None:
        """Frame indices wanted by `prime`, or None where candidates come from the past."""
        return self._schedule.pool

    def prime(self, frames: Mapping[int, ByteArray]) -> None:
        """Take the pool's frames, (H, W, 3) uint8 RGB by frame index, before the stream starts."""
        for frame_index, frame in frames.items():
            if frame_index not in self.memory:
                self._remember(frame_index, frame)

    @torch.inference_mode()
    def push(self, frame: ByteArray) -> list[FrameDetections]:
        """Take the next frame, (H, W, 3) uint8 RGB, and return the detections that it completes.

        UserError where the pool was not primed, or the frame's size differs from that of the frames before.
        """
        if self._pushed == 0:
            self._schedule.require_pool(self.memory)
        if self._pushed not in self.memory:  # a pool frame has passed the backbone already
            self._remember(self._pushed, frame)
        self._pushed += 1
        return self._detect(self._schedule.push())

    @torch.inference_mode()
    def finish(self) -> list[FrameDetections]:
        """End the stream and return the detections of the last frames."""
        return self._detect(self._schedule.finish())

    @torch.inference_mode()
    def _remember(self, frame_index: int, frame: ByteArray) -> None:
        size = (frame.shape[0], frame.shape[1])
        if self._frame_size not in (None, size):
            raise UserError(
                f"frame {frame_index} is {size[0]}x{size[1]} pixels (height x width), expected {self._frame_size} "
                "like the frames before; a stream has one size: split the video where it changes"
            )
        self._frame_size = size
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).to(self._device).permute(2, 0, 1)[None]
        image = to_model_input(pixels, self._config.model)
        features = self._model.extract(pad_to_one_size([image])[0])
        self.memory.keep(frame_index, FrameState(self._model, features, (image.shape[2], image.shape[3])))

    def _detect(self, windows: list[Window]) -> list[FrameDetections]:
        detections = [self._detect_window(window) for window in windows]
        self.memory.forget_all_but(self._schedule)
        return detections

    def _detect_window(self, window: Window) -> FrameDetections:
        model, state = self._model, self.memory[window.current]
        enhanced = self._enhance(state, window)
        short_term = self._summaries(window.relation, state)
        long_term = self._summaries(self._select(state, window), state)
        maps = model.describe(enhanced)
        proposals = model.propose(maps, [state.image_size], self._config.model.proposals.current_top_k)
        output = model.detect(maps, proposals, short_term, long_term, len(window.relation))
        assert self._frame_size is not None
        return FrameDetections(
            window.current, model.postprocess(output, [state.image_size], [self._frame_size])[0]
        )

    def _enhance(self, state: FrameState, window: Window) -> Tensor:
        if self._model.alignment is None or not window.alignment:
            return state.features
        supports = [self.memory[index].support for index in window.alignment]
        joined = SupportMaps(
            torch.cat([support.features for support in supports], dim=1),
            torch.cat([support.offset_response for support in supports], dim=1),
            torch.cat([support.taps for support in supports], dim=1),
        )
        return self._model.enhance_prepared(state.features, joined)

    def _select(self, state: FrameState, window: Window) -> list[int]:
        if not window.candidates:
            return []
        candidates = torch.stack([self.memory[index].descriptor for index in window.candidates], dim=1)
        kept = self._model.select(state.descriptor, candidates)[0]
        return [window.candidates[place] for place in kept.tolist()]

    def _summaries(self, frame_indices: Sequence[int], state: FrameState) -> RelatedProposals:
        """Line the proposals of several frames up: R frames -> (1, R*P, ...)."""
        if not frame_indices or not self._config.model.relation.stages:
            return self._model.summarise(state.features[:, None][:, :0], [state.image_size])
        summaries = [self.memory[index].summary for index in frame_indices]
        return RelatedProposals(
            torch.cat([summary.features for summary in summaries], dim=1),
            torch.cat([summary.boxes for summary in summaries], dim=1),
            torch.cat([summary.valid for summary in summaries], dim=1),
        )
