"""The library's region proposals on torch tensors, for checks and timings; on the CPU with a library for the host.

Shapes: A anchors a cell, h x w cells, K proposals.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from deploy.plugin import library as kernels
from deploy.plugin.library import PluginError, ProposalParams
from deploy.suppression import float32_threshold


@dataclass(slots=True)
class ProposalCall:
    """One prepared call: its inputs as they lie in memory, and the outputs that a run fills."""

    library: ctypes.CDLL
    params: ProposalParams
    inputs: list[Tensor]
    """Objectness, box deltas, cell anchors, image size; kept, because C holds only their addresses."""
    boxes: Tensor
    """(1, K, 4) xyxy, pixels, best first; zero where there are fewer."""
    valid: Tensor
    """(1, K) int32, 1 or 0."""
    workspace: Tensor | None = None

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
        call = cls(library, params, [*inputs, image_size.to(device, torch.int32).contiguous()], boxes, valid)
        if hasattr(library, "lstfe_proposals"):
            size = library.lstfe_proposals_workspace(ctypes.byref(params))
            call.workspace = torch.empty(size, dtype=torch.uint8, device=device) if size else None
        return call

    def run(self, stream: int = 0) -> None:
        """Fill the outputs on the device, in a CUDA stream given by its address."""
        _require_ok(self.library, self.status(stream))

    def status(self, stream: int = 0) -> int:
        """Start the work and return the library's status."""
        address, size = None, 0
        if self.workspace is not None:
            address, size = self.workspace.data_ptr(), self.workspace.nbytes
        return int(
            self.library.lstfe_proposals(ctypes.byref(self.params), *self._addresses(), address, size, stream)
        )

    def run_on_host(self) -> None:
        """Fill the outputs with the host reference; tensors are on the CPU."""
        _require_ok(
            self.library, self.library.lstfe_proposals_host(ctypes.byref(self.params), *self._addresses())
        )

    def _addresses(self) -> list[int]:
        return [tensor.data_ptr() for tensor in (*self.inputs, self.boxes, self.valid)]


def _require_ok(library: ctypes.CDLL, status: int) -> None:
    if status != kernels.OK:
        raise PluginError(f"proposals: {kernels.status_text(library, status)}")
