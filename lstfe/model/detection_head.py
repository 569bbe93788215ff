"""Detection head: proposal features -> classes and boxes; its training targets; detections after NMS.

Shapes: B frames, N proposals a frame, K classes with the background (label 0), D embedding.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from lstfe import boxes as box_geometry
from lstfe.config import HeadConfig
from lstfe.model import losses
from lstfe.types import Detections, Proposals, Targets

_SMOOTH_L1_BETA = 1.0


class DetectionHead(nn.Module):
    """One linear layer for the classes, one for class-wise box deltas."""

    def __init__(self, embedding: int, num_classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.class_logits = nn.Linear(embedding, num_classes)
        self.box_deltas = nn.Linear(embedding, num_classes * 4)
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.box_deltas.weight, std=0.001)
        for layer in (self.class_logits, self.box_deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return class logits (B, N, K) and box deltas (B, N, 4*K) of features (B, N, D)."""
        return self.class_logits(features), self.box_deltas(features)

    @torch.no_grad()
    def sample(
        self, proposals: Proposals, targets: list[Targets], generators: list[torch.Generator | None]
    ) -> tuple[Proposals, list[Tensor]]:
        """Draw the proposals that enter the loss, ground truth added to them.

        Returns them padded to `rois_per_image` and, per frame, the matched ground truth of each (losses.match).
        """
        number = self.config.rois_per_image
        boxes = proposals.boxes.new_zeros((len(targets), number, 4))
        valid = torch.zeros((len(targets), number), dtype=torch.bool, device=boxes.device)
        all_matches = []
        for index, (target, generator) in enumerate(zip(targets, generators, strict=True)):
            pool = torch.cat((target.boxes, proposals.boxes[index][proposals.valid[index]]))
            iou = self.config.positive_iou
            matches = losses.match(pool, target, positive_iou=iou, negative_iou=iou, keep_best=False)
            chosen = torch.cat(
                losses.sample(
                    matches,
                    number=number,
                    positive_fraction=self.config.positive_fraction,
                    generator=generator,
                )
            )
            boxes[index, : len(chosen)] = pool[chosen]
            valid[index, : len(chosen)] = True
            all_matches.append(matches[chosen])
        return Proposals(boxes, valid), all_matches

    def loss(
        self,
        class_logits: Tensor,
        box_deltas: Tensor,
        sampled: Proposals,
        matches: list[Tensor],
        targets: list[Targets],
    ) -> dict[str, Tensor]:
        """Return `classification` and `box_regression`, the mean of both over the frames."""
        per_frame = [
            self._frame_loss(logits[: len(match)], deltas[: len(match)], boxes[: len(match)], match, target)
            for logits, deltas, boxes, match, target in zip(
                class_logits.float(), box_deltas.float(), sampled.boxes, matches, targets, strict=True
            )
        ]
        classification, regression = (torch.stack(part).mean() for part in zip(*per_frame, strict=True))
        return {"classification": classification, "box_regression": regression}

    def _frame_loss(
        self, logits: Tensor, deltas: Tensor, boxes: Tensor, matches: Tensor, target: Targets
    ) -> tuple[Tensor, Tensor]:
        positive = (matches >= 0).nonzero().flatten()
        labels = torch.zeros_like(matches)
        labels[positive] = target.labels[matches[positive]]
        own_deltas = deltas.unflatten(1, (self.num_classes, 4))[positive, labels[positive]]  # (P, 4)
        truth = box_geometry.encode(target.boxes[matches[positive]], boxes[positive], self.config.box_weights)
        regression = losses.regression_loss(own_deltas, truth, num_sampled=len(matches), beta=_SMOOTH_L1_BETA)
        return losses.classification_loss(logits, labels), regression

    @torch.no_grad()
    def postprocess(
        self,
        class_logits: Tensor,
        box_deltas: Tensor,
        proposals: Proposals,
        image_sizes: list[tuple[int, int]],
        original_sizes: list[tuple[int, int]],
    ) -> list[Detections]:
        """Decode, threshold, suppress per class and scale back to original pixels: one Detections a frame."""
        scores = class_logits.float().softmax(dim=2)[:, :, 1:]  # (B, N, K - 1)
        deltas = box_deltas.float().unflatten(2, (self.num_classes, 4))[:, :, 1:]
        boxes = box_geometry.decode(deltas, proposals.boxes[:, :, None], self.config.box_weights)
        return [
            self._frame_detections(boxes[i][keep], scores[i][keep], image_sizes[i], original_sizes[i])
            for i, keep in enumerate(proposals.valid)
        ]

    def _frame_detections(
        self, boxes: Tensor, scores: Tensor, image_size: tuple[int, int], original_size: tuple[int, int]
    ) -> Detections:
        boxes = box_geometry.clip_to_image(boxes, image_size)
        proposal_index, class_index = (scores > self.config.score_threshold).nonzero(as_tuple=True)
        boxes, scores = boxes[proposal_index, class_index], scores[proposal_index, class_index]
        large = box_geometry.area(boxes) > 0
        boxes, scores, class_index = boxes[large], scores[large], class_index[large]
        kept = batched_nms(boxes, scores, class_index, self.config.nms_iou)[
            : self.config.detections_per_frame
        ]
        scale = boxes.new_tensor([original_size[1] / image_size[1], original_size[0] / image_size[0]]).repeat(
            2
        )
        return Detections(
            (boxes[kept] * scale).cpu().numpy().astype(np.float32),
            scores[kept].cpu().numpy().astype(np.float32),
            (class_index[kept] + 1).cpu().numpy().astype(np.int64),
        )
