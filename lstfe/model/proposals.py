"""Region proposals: anchors, the region proposal network, and its training targets.

Shapes: B frames, A anchors per cell, h x w cells, N = h*w*A anchors, K proposals a frame.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import nms

from lstfe import boxes as box_geometry
from lstfe.config import ProposalConfig
from lstfe.model import losses
from lstfe.types import Proposals, Targets

# The region proposal network regresses without weights (Faster R-CNN).
_BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
_SMOOTH_L1_BETA = 1.0 / 9.0
LEAST_SIDE_PX = 1e-3
"""Boxes with a shorter side take no part: what a box clipped to nothing has left, pixels."""


class ProposalNetwork(nn.Module):
    """3x3 convolution, then objectness and box deltas per anchor."""

    def __init__(self, channels: int, stride: int, config: ProposalConfig) -> None:
        super().__init__()
        self.config = config
        self.stride = stride
        num_anchors = len(config.anchor_sizes) * len(config.anchor_ratios)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, num_anchors, 1)
        self.box_deltas = nn.Conv2d(channels, num_anchors * 4, 1)
        for layer in (self.conv, self.objectness, self.box_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(cast(Tensor, layer.bias))
        self.cell_anchors: Tensor
        self.register_buffer("cell_anchors", cell_anchors(config), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return objectness logits (B, A, h, w) and box deltas (B, 4*A, h, w) of features (B, C, h, w)."""
        hidden = self.conv(features).relu()
        return self.objectness(hidden), self.box_deltas(hidden)

    def anchors(self, map_size: tuple[int, int]) -> Tensor:
        """Return the anchors of a map in the order of `flatten_maps`: (h, w) -> (h*w*A, 4) pixels."""
        centers_y, centers_x = (
            (torch.arange(cells, device=self.cell_anchors.device, dtype=torch.float32) + 0.5) * self.stride
            for cells in map_size
        )
        y, x = torch.meshgrid(centers_y, centers_x, indexing="ij")
        centers = torch.stack((x, y, x, y), dim=-1)[:, :, None]  # (h, w, 1, 4)
        return (centers + self.cell_anchors).reshape(-1, 4)

    @torch.no_grad()
    def propose(
        self, objectness: Tensor, box_deltas: Tensor, image_sizes: list[tuple[int, int]], *, top_k: int
    ) -> Proposals:
        """Turn both maps into the best boxes of each frame, best first: -> Proposals (B, top_k)."""
        logits, deltas = flatten_maps(objectness.float(), box_deltas.float())
        anchors = self.anchors((objectness.shape[2], objectness.shape[3]))
        boxes = logits.new_zeros((len(logits), top_k, 4))
        valid = torch.zeros((len(logits), top_k), dtype=torch.bool, device=logits.device)
        for index, image_size in enumerate(image_sizes):
            kept = self._best_boxes(logits[index], deltas[index], anchors, image_size, top_k)
            boxes[index, : len(kept)] = kept
            valid[index, : len(kept)] = True
        return Proposals(boxes, valid)

    def loss(
        self,
        objectness: Tensor,
        box_deltas: Tensor,
        image_sizes: list[tuple[int, int]],
        targets: list[Targets],
        generators: list[torch.Generator | None],
    ) -> dict[str, Tensor]:
        """Return `objectness` and `proposal_boxes`, the mean of both losses over the frames."""
        logits, deltas = flatten_maps(objectness.float(), box_deltas.float())
        anchors = self.anchors((objectness.shape[2], objectness.shape[3]))
        per_frame = [
            self._frame_loss(*frame, anchors)
            for frame in zip(logits, deltas, image_sizes, targets, generators, strict=True)
        ]
        objectness_loss, box_loss = (torch.stack(part).mean() for part in zip(*per_frame, strict=True))
        return {"objectness": objectness_loss, "proposal_boxes": box_loss}

    def _best_boxes(
        self, logits: Tensor, deltas: Tensor, anchors: Tensor, image_size: tuple[int, int], top_k: int
    ) -> Tensor:
        best = logits.sort(descending=True, stable=True).indices[: self.config.pre_nms_top_k]
        boxes = box_geometry.decode(deltas[best], anchors[best], _BOX_WEIGHTS)
        boxes = box_geometry.clip_to_image(boxes, image_size)
        sides = boxes[:, 2:] - boxes[:, :2]
        # Anchors in the padding shrink to nothing when clipped and leave here.
        large = (sides > max(self.config.min_size_px, LEAST_SIDE_PX)).all(dim=1)
        boxes, scores = boxes[large], logits[best][large]
        return boxes[nms(boxes, scores, self.config.nms_iou)[:top_k]]

    def _frame_loss(
        self,
        logits: Tensor,
        deltas: Tensor,
        image_size: tuple[int, int],
        target: Targets,
        generator: torch.Generator | None,
        anchors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        matches = losses.match(
            anchors,
            target,
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            keep_best=True,
        )
        height, width = image_size
        x, y, _, _ = box_geometry.centers_and_sizes(anchors)
        matches[(x >= width) | (y >= height)] = losses.IGNORED
        positive, negative = losses.sample(
            matches,
            number=config.anchors_per_image,
            positive_fraction=config.positive_fraction,
            generator=generator,
        )
        truth = box_geometry.encode(target.boxes[matches[positive]], anchors[positive], _BOX_WEIGHTS)
        box_loss = losses.regression_loss(
            deltas[positive], truth, num_sampled=len(positive) + len(negative), beta=_SMOOTH_L1_BETA
        )
        return losses.objectness_loss(logits, positive, negative), box_loss


def cell_anchors(config: ProposalConfig) -> Tensor:
    """Return the anchors of one cell around (0, 0), sizes outermost: (A, 4) pixels."""
    sizes = torch.tensor(config.anchor_sizes)[:, None]
    ratio_roots = torch.tensor(config.anchor_ratios).sqrt()[None]
    half_widths, half_heights = (sizes / ratio_roots / 2).flatten(), (sizes * ratio_roots / 2).flatten()
    return torch.stack((-half_widths, -half_heights, half_widths, half_heights), dim=1)


def flatten_maps(objectness: Tensor, box_deltas: Tensor) -> tuple[Tensor, Tensor]:
    """Line both maps up with the anchors: (B, A, h, w), (B, 4*A, h, w) -> (B, N), (B, N, 4)."""
    logits = objectness.permute(0, 2, 3, 1).flatten(1)
    deltas = box_deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
    return logits, deltas
