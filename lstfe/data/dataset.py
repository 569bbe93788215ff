"""Training clips from a prepared data set, decoded frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameError, FrameStore
from lstfe.data.sampling import ClipPlan, ClipSampler
from lstfe.types import ByteArray, Clip, FloatArray, IntArray, Targets

MAX_FAULTS = 10
"""Clips in a row that cannot be read before there is no use in trying another."""

Allocate = Callable[[tuple[int, int, int, int]], ByteArray]
"""Takes (T, H, W, 3) and returns memory of that shape; may be called again when a clip cannot be read."""


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """All of a clip but its pixels: what is cheap to send to another process."""

    plan: ClipPlan
    boxes: FloatArray
    """(G, 4) xyxy, of the current frame; no crowds."""
    labels: IntArray
    """(G,)"""
    crowds: FloatArray
    """(R, 4) xyxy, of the current frame."""
    faults: tuple[str, ...]

    def with_frames(self, frames: ByteArray) -> Clip:
        """Return the clip; its frames share the memory of `frames` (T, H, W, 3)."""
        return Clip(
            frames=torch.from_numpy(frames).permute(0, 3, 1, 2),  # (T, 3, H, W)
            layout=self.plan.layout,
            targets=Targets(
                torch.from_numpy(self.boxes),
                torch.from_numpy(self.labels),
                torch.from_numpy(self.crowds) if len(self.crowds) else None,
            ),
            video=self.plan.video,
            frame_indices=self.plan.frame_indices,
            flip=self.plan.flip,
            faults=self.faults,
        )


class ClipDataset(Dataset[Clip]):
    """Clip number -> Clip; any process may read any clip, and whichever does reads the same."""

    def __init__(self, annotations: VideoAnnotations, store: FrameStore, sampler: ClipSampler) -> None:
        self._annotations = annotations
        self._store = store
        self._sampler = sampler

    def __getitem__(self, clip_number: int) -> Clip:
        """Read one clip; FrameError where neither it nor any of its replacements can be read."""
        frames, record = self.read(clip_number, _fresh_memory)
        return record.with_frames(frames)

    def read(self, clip_number: int, allocate: Allocate) -> tuple[ByteArray, ClipRecord]:
        """Return a clip's frames (T, H, W, 3), in memory from `allocate`, and the rest of it.

        A clip that cannot be read is replaced by another, which depends on its number alone.
        """
        plan, faults = self._sampler.clip(clip_number), list[str]()
        while True:
            try:
                frames = self._read_frames(plan, allocate)
            except FrameError as error:
                faults.append(str(error))
                if len(faults) == MAX_FAULTS:
                    raise FrameError(
                        f"{error}. Neither can {MAX_FAULTS - 1} other clips be read that were tried before"
                    ) from None
                plan = self._sampler.replacement(clip_number, attempt=len(faults))
                continue
            # A crowd's box surrounds many objects, or one that can hardly be told: no example of what to find, nor
            # of what not to find.
            boxes, labels = self._annotations.boxes(plan.video, plan.frame_indices[0], crowds=False)
            crowds, _ = self._annotations.boxes(plan.video, plan.frame_indices[0], crowds=True)
            return frames, ClipRecord(plan, boxes, labels, crowds, tuple(faults))

    def _read_frames(self, plan: ClipPlan, allocate: Allocate) -> ByteArray:
        """Decode each frame once, however often the clip shows it."""
        video = self._annotations.video_by_name[plan.video]
        frames = allocate((len(plan.frame_indices), video.height, video.width, 3))
        places = {index: place for place, index in reversed(list(enumerate(plan.frame_indices)))}
        self._store.read_into(plan.video, list(places), [frames[place] for place in places.values()])
        for place, index in enumerate(plan.frame_indices):
            if places[index] != place:
                frames[place] = frames[places[index]]
        return frames


def _fresh_memory(shape: tuple[int, int, int, int]) -> ByteArray:
    return np.empty(shape, np.uint8)
