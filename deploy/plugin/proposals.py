"""The library's region proposals on torch tensors, for checks and timings; on the CPU with a library for the host.

Shapes: A anchors a cell, h x w cells, K proposals.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from deploy.plugin.calls import PreparedCall
from deploy.plugin.library import ProposalParams
from deploy.suppression import float32_threshold


@dataclass(slots=True)
class ProposalCall(PreparedCall):
    """One prepared call; its inputs are objectness, box deltas, cell anchors, image size."""

    NAME: ClassVar[str] = "proposals"

    @property
    def boxes(self) -> Tensor:
        """(1, K, 4) xyxy, pixels, best first; zero where there are fewer."""
        return self.outputs[0]

    @property
    def valid(self) -> Tensor:
        """(1, K) int32, 1 or 0."""
        return self.outputs[1]

    @classmethod
    def prepare(
        cls,
        library: ctypes.CDLL,
        objectness: Tensor,
        box_deltas: Tensor,
        cell_anchors: Tensor,
        image_size: Tensor,
        *,
        stride: float,
        pre_nms_top_k: int,
        post_nms_top_k: int,
        nms_iou: float,
        min_size_px: float = 0.0,
    ) -> Self:
        """Prepare `ProposalNetwork.propose` for one frame.

        (1, A, h, w), (1, 4*A, h, w), (A, 4) pixels around a cell's centre, (2,) height and width -> boxes and
        valid of K = `post_nms_top_k` proposals. All tensors are on one device.
        """
        params = ProposalParams(
            *objectness.shape[1:],
            stride,
            *(pre_nms_top_k, post_nms_top_k, float32_threshold(nms_iou), min_size_px),
        )
        inputs = [tensor.float().contiguous() for tensor in (objectness, box_deltas, cell_anchors)]
        device = objectness.device
        # Numbers that are no result, so that an element nobody wrote is found.
        boxes = torch.full((1, post_nms_top_k, 4), float("nan"), device=device)
        valid = torch.full((1, post_nms_top_k), -1, dtype=torch.int32, device=device)
        size = image_size.to(device, torch.int32).contiguous()
        return cls(library, params, [*inputs, size], [boxes, valid])
