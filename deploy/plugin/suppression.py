"""The library's suppression on torch tensors, for checks and timings; on the CPU with a library for the host."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from deploy.plugin.calls import PreparedCall
from deploy.plugin.library import SuppressionParams
from deploy.suppression import float32_threshold


@dataclass(slots=True)
class SuppressionCall(PreparedCall):
    """One prepared call; its inputs are boxes and scores."""

    NAME: ClassVar[str] = "suppression"

    @property
    def marks(self) -> Tensor:
        """(C, N) int32, 1 where a box is kept, else 0."""
        return self.outputs[0]

    @classmethod
    def prepare(
        cls,
        library: ctypes.CDLL,
        boxes: Tensor,
        scores: Tensor,
        *,
        nms_iou: float,
        score_threshold: float,
        max_kept: int,
    ) -> Self:
        """Prepare `deploy.suppression.suppress` for C classes of N boxes each: (C, N, 4), (C, N) -> marks (C, N)."""
        params = SuppressionParams(*scores.shape, float32_threshold(nms_iou), score_threshold, max_kept)
        inputs = [tensor.float().contiguous() for tensor in (boxes, scores)]
        # A number that is no result, so that an element nobody wrote is found.
        marks = torch.full(scores.shape, -1, dtype=torch.int32, device=scores.device)
        return cls(library, params, inputs, [marks])
