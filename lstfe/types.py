"""What travels between the parts: shapes and units.

Shapes: B clips, T frames of a clip, H x W pixels of the resized (and padded) image, N boxes, D embedding size.
Boxes are xyxy float pixels, continuous (no +1). `image_size` is (height, width). Label 0 is the background.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # this module stays free of torch: the deployed runtime imports it
    from torch import Tensor

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClipLayout:
    """Which of a clip's T frames play which part; frame 0 is always the current frame."""

    alignment: tuple[int, ...] = ()
    """Positions of the short-term frames that are aligned onto the current frame."""
    relation: tuple[int, ...] = ()
    """Positions of the short-term frames whose proposals are related to the current ones."""
    candidates: tuple[int, ...] = ()
    """Positions of the long-term candidates."""


@dataclass(slots=True)
class Targets:
    """Ground truth of one frame: boxes (G, 4) in pixels of the frame they belong to, labels (G,) int64 >= 1."""

    boxes: Tensor
    labels: Tensor
    crowds: Tensor | None = None
    """(R, 4) regions, in the same pixels, that may hold objects nobody marked one by one; None without any."""

    def pin_memory(self) -> Targets:
        """Return them where a GPU can fetch them by itself."""
        boxes, labels = self.boxes.pin_memory(), self.labels.pin_memory()
        return Targets(boxes, labels, None if self.crowds is None else self.crowds.pin_memory())


@dataclass(slots=True)
class Clip:
    """One sample of the data set, as decoded: nothing is resized or normalised yet."""

    frames: Tensor
    """(T, 3, H, W) uint8 RGB, channels last in memory as decoded; frame 0 is the current frame."""
    layout: ClipLayout
    targets: Targets
    """Of the current frame, in pixels of `frames`."""
    video: str
    frame_indices: tuple[int, ...]
    """0-based places in the video, one per frame."""
    flip: bool = False
    """All frames and the targets are yet to be mirrored left to right, which the training device does."""
    faults: tuple[str, ...] = ()
    """Why clips could not be read whose place this one takes; empty as a rule."""

    def pin_memory(self) -> Clip:
        """Return the clip with its tensors where a GPU can fetch them by itself; PyTorch's loader calls this."""
        targets = self.targets.pin_memory()
        return dataclasses.replace(self, frames=self.frames.pin_memory(), targets=targets)


@dataclass(slots=True)
class ClipBatch:
    """Clips on the training device, resized, normalised and padded to one size."""

    images: Tensor
    """(B, T, 3, H, W) float."""
    layout: ClipLayout
    image_sizes: list[tuple[int, int]]
    """(height, width) of each clip's images without the padding."""
    original_sizes: list[tuple[int, int]]
    """(height, width) before the resize; detections are given in these pixels."""
    targets: list[Targets] = field(default_factory=list)
    """In pixels of the resized images."""
    seeds: list[int] = field(default_factory=list)
    """One per clip, for the random sampling of its anchors and RoIs; empty = the global generator.

    Drawn from the clip's number, so that losses depend neither on the number of processes nor on what ran before.
    """


@dataclass(slots=True)
class Proposals:
    """Boxes of B frames, best first, padded to K a frame."""

    boxes: Tensor
    """(B, K, 4) pixels of the resized image; padding is all zero."""
    valid: Tensor
    """(B, K) bool; False marks padding."""


@dataclass(slots=True)
class Detections:
    """What leaves the detector for one frame: NumPy, so that it means the same with every backend."""

    boxes: FloatArray
    """(N, 4) xyxy, *original* pixels, clipped to the frame."""
    scores: FloatArray
    """(N,) 0..1, descending."""
    labels: IntArray
    """(N,) >= 1; `label_names[label - 1]` is the category."""

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def none() -> Detections:
        """Return the detections of a frame without any."""
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(slots=True)
class FrameDetections:
    """A streaming detector's answer: the detections of frame `frame_index` (0-based) of its video."""

    frame_index: int
    detections: Detections
