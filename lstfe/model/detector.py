"""LSTFE-Net, left to right as in the paper's Figure 1.

Shapes: B clips, T frames a clip, C channels, h x w cells, N current proposals, S short-term and L long-term frames
with P proposals each, D embedding, E descriptor channels, K classes with the background.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from lstfe.config import ModelConfig
from lstfe.model.alignment import FeatureAlignment, SupportMaps
from lstfe.model.backbone import Backbone
from lstfe.model.detection_head import DetectionHead
from lstfe.model.pixel_aggregation import PixelAggregation
from lstfe.model.proposals import ProposalNetwork
from lstfe.model.relation import FeatureAggregation, RelatedProposals
from lstfe.model.selection import describe_frame, select_frames
from lstfe.transfer import to_device
from lstfe.types import ClipBatch, Detections, Proposals


@dataclass(slots=True)
class FrameMaps:
    """What is read off a frame's feature map, enhanced or not."""

    roi_map: Tensor
    """(B, C', h, w) the map that RoIAlign samples: C5, reduced."""
    objectness: Tensor
    """(B, A, h, w) logits."""
    box_deltas: Tensor
    """(B, 4*A, h, w)."""
    descriptor: Tensor
    """(B, E) g(F) of the frame selection."""


@dataclass(slots=True)
class HeadOutput:
    """The head's view of the current frame's proposals."""

    proposals: Proposals
    class_logits: Tensor
    """(B, N, K)."""
    box_deltas: Tensor
    """(B, N, 4*K)."""


class LSTFENet(nn.Module):
    """Long short-term feature enhancement network; `num_classes` counts the background."""

    def __init__(self, config: ModelConfig, num_classes: int, *, pretrained: bool = True) -> None:
        """`pretrained=False` leaves `backbone.weights` unread (no download): a trained state is loaded next."""
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone, pretrained=pretrained)
        channels = self.backbone.channels
        aligned = config.alignment.num_blocks > 0
        # Without blocks neither module exists: k = 0 has no parameters and leaves the features as they are.
        self.alignment = FeatureAlignment(channels, config.alignment) if aligned else None
        self.pixel_aggregation = PixelAggregation(channels, config.pixel_aggregation) if aligned else None
        self.proposal_network = ProposalNetwork(channels, self.backbone.stride, config.proposals)
        reduced = config.backbone.reduce_channels
        self.reduce = nn.Conv2d(self.backbone.c5_channels, reduced, 1) if reduced else None
        roi_channels = reduced or self.backbone.c5_channels
        self.fc0 = nn.Linear(roi_channels * config.head.roi_size**2, config.relation.embedding)
        self.relation = FeatureAggregation(config.relation)
        self.head = DetectionHead(config.relation.embedding, num_classes, config.head)

    def forward(self, batch: ClipBatch) -> dict[str, Tensor] | list[Detections]:
        """Detect objects on each clip's current frame (paper Fig. 1).

        In training: the losses `objectness`, `proposal_boxes`, `classification`, `box_regression`.
        Otherwise: one Detections per clip, original pixels.
        """
        layout = batch.layout
        features = self.extract_clips(batch)
        short_term_frames = _frames_at(layout.relation, features)
        enhanced = self.enhance(features[:, 0], _frames_at(layout.alignment, features))
        long_term_frames = self.select_features(features[:, 0], _frames_at(layout.candidates, features))
        short_term = self.summarise(short_term_frames, batch.image_sizes)
        long_term = self.summarise(long_term_frames, batch.image_sizes)
        maps = self.describe(enhanced)
        if self.training:
            return self._losses(maps, short_term, long_term, len(layout.relation), batch)
        proposals = self.propose(maps, batch.image_sizes, self.config.proposals.current_top_k)
        output = self.detect(maps, proposals, short_term, long_term, len(layout.relation))
        return self.postprocess(output, batch.image_sizes, batch.original_sizes)

    def temporal_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters that only clips with reference frames train."""
        for module in (self.alignment, self.pixel_aggregation, self.relation):
            if module is not None:
                yield from module.parameters()

    # ------------------------------------------------------------------ the boxes of Figure 1, one by one

    def extract(self, images: Tensor) -> Tensor:
        """Feature extraction: (N, 3, H, W) -> (N, C, h, w)."""
        features: Tensor = self.backbone(images)
        return features

    def enhance(self, current: Tensor, short_term: Tensor) -> Tensor:
        """Align the short-term frames and aggregate them: (B, C, h, w), (B, S, C, h, w) -> (B, C, h, w)."""
        if self.alignment is None or self.pixel_aggregation is None or short_term.shape[1] == 0:
            return current
        enhanced: Tensor = self.pixel_aggregation(current, self.alignment(current, short_term))
        return enhanced

    def enhance_prepared(self, current: Tensor, support: SupportMaps) -> Tensor:
        """`enhance` with the once-per-frame part of the short-term frames done (FeatureAlignment.prepare)."""
        if self.alignment is None or self.pixel_aggregation is None or support.features.shape[1] == 0:
            return current
        enhanced: Tensor = self.pixel_aggregation(current, self.alignment.align(current, support))
        return enhanced

    def describe(self, features: Tensor) -> FrameMaps:
        """Compute objectness, box deltas, C5 and the descriptor of a feature map (B, C, h, w)."""
        c5 = self.backbone.high_level(features)
        roi_map = c5 if self.reduce is None else self.reduce(c5).relu()
        objectness, box_deltas = self.proposal_network(features)
        return FrameMaps(roi_map, objectness, box_deltas, describe_frame(c5))

    def descriptor(self, features: Tensor) -> Tensor:
        """Compute g(F) alone: (B, C, h, w) -> (B, E)."""
        return describe_frame(self.backbone.high_level(features))

    def propose(self, maps: FrameMaps, image_sizes: list[tuple[int, int]], top_k: int) -> Proposals:
        """Region proposals, best first: -> Proposals (B, top_k)."""
        return self.proposal_network.propose(maps.objectness, maps.box_deltas, image_sizes, top_k=top_k)

    def embed(self, roi_map: Tensor, boxes: Tensor) -> Tensor:
        """RoIAlign and the first fully connected layer: (B, C', h, w), (B, K, 4) pixels -> (B, K, D)."""
        # In float32 also under autocast: bf16 boxes move in steps of 4 pixels past pixel 512.
        pooled = roi_align(
            roi_map.float(),
            list(boxes.float()),
            output_size=self.config.head.roi_size,
            spatial_scale=1.0 / self.backbone.stride,
            sampling_ratio=2,
            aligned=True,
        )
        embedded: Tensor = self.fc0(pooled.flatten(1)).relu()
        return embedded.reshape(*boxes.shape[:2], -1)

    def select(self, current_descriptor: Tensor, candidate_descriptors: Tensor) -> Tensor:
        """Frame selection: (B, E), (B, L, E) -> places of the kept candidates (B, m)."""
        return select_frames(current_descriptor, candidate_descriptors, self.config.selection)

    def relate(
        self,
        current: RelatedProposals,
        short_term: RelatedProposals,
        long_term: RelatedProposals,
        num_short: int,
    ) -> Tensor:
        """Long short-term feature aggregation: -> (B, N, D)."""
        related: Tensor = self.relation(current, short_term, long_term, num_short=num_short)
        return related

    def postprocess(
        self, output: HeadOutput, image_sizes: list[tuple[int, int]], original_sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """Decode and suppress: one Detections per clip, original pixels."""
        return self.head.postprocess(
            output.class_logits, output.box_deltas, output.proposals, image_sizes, original_sizes
        )

    # --------------------------------------------------------------------------- combinations of them

    def extract_clips(self, batch: ClipBatch) -> Tensor:
        """Extract all frames of a batch, (B, T, C, h, w), the long-term candidates without gradient where set so."""
        images, layout = batch.images, batch.layout
        near = 1 + max((0, *layout.alignment, *layout.relation))
        if self.config.selection.backbone_gradient or near == images.shape[1]:
            return self._extract_frames(images)
        short_term = self._extract_frames(images[:, :near])
        with torch.no_grad():
            far = self._extract_frames(images[:, near:])
        return torch.cat((short_term, far), dim=1)

    def _extract_frames(self, images: Tensor) -> Tensor:
        """(B, T, 3, H, W) -> (B, T, C, h, w)."""
        features = self.extract(images.flatten(0, 1))
        return features.reshape(*images.shape[:2], *features.shape[1:])

    def select_features(self, current: Tensor, candidates: Tensor) -> Tensor:
        """Keep the selected candidates' features: (B, C, h, w), (B, L, C, h, w) -> (B, m, C, h, w)."""
        if candidates.shape[1] == 0:
            return candidates
        with torch.no_grad(), _without_shared_casts(candidates.device.type):
            maps = torch.cat((current[:, None], candidates), dim=1)
            descriptors = self.descriptor(maps.flatten(0, 1)).reshape(*maps.shape[:2], -1)
            kept = self.select(descriptors[:, 0], descriptors[:, 1:])  # (B, m)
        return candidates[torch.arange(len(kept), device=kept.device)[:, None], kept]

    def summarise(self, features: Tensor, image_sizes: list[tuple[int, int]]) -> RelatedProposals:
        """Turn reference frames into proposals and their features: (B, R, C, h, w) -> (B, R*P, ...)."""
        clips, frames = features.shape[:2]
        top_k = self.config.proposals.reference_top_k
        if frames == 0 or not self.config.relation.stages:
            empty = features.new_zeros((clips, 0, 4))
            width = self.config.relation.embedding
            return RelatedProposals(features.new_zeros((clips, 0, width)), empty, empty[..., 0].bool())
        maps = self.describe(features.flatten(0, 1))
        sizes = [size for size in image_sizes for _ in range(frames)]
        proposals = self.propose(maps, sizes, top_k)
        embedded = self.embed(maps.roi_map, proposals.boxes)
        return RelatedProposals(
            embedded.reshape(clips, frames * top_k, -1),
            proposals.boxes.reshape(clips, frames * top_k, 4),
            proposals.valid.reshape(clips, frames * top_k),
        )

    def detect(
        self,
        maps: FrameMaps,
        proposals: Proposals,
        short_term: RelatedProposals,
        long_term: RelatedProposals,
        num_short: int,
    ) -> HeadOutput:
        """Embed the current proposals, relate them to the references and classify them."""
        embedded = self.embed(maps.roi_map, proposals.boxes)
        current = RelatedProposals(embedded, proposals.boxes, proposals.valid)
        related = self.relate(current, short_term, long_term, num_short)
        return HeadOutput(proposals, *self.head(related))

    def _losses(
        self,
        maps: FrameMaps,
        short_term: RelatedProposals,
        long_term: RelatedProposals,
        num_short: int,
        batch: ClipBatch,
    ) -> dict[str, Tensor]:
        generators = _generators(batch)
        losses = self.proposal_network.loss(
            maps.objectness, maps.box_deltas, batch.image_sizes, batch.targets, generators
        )
        proposals = self.propose(maps, batch.image_sizes, self.config.proposals.current_top_k)
        sampled, matches = self.head.sample(proposals, batch.targets, generators)
        output = self.detect(maps, sampled, short_term, long_term, num_short)
        return losses | self.head.loss(
            output.class_logits, output.box_deltas, sampled, matches, batch.targets
        )


def _frames_at(places: tuple[int, ...], features: Tensor) -> Tensor:
    """Take the frames at some places of each clip: (B, T, C, h, w) -> (B, len(places), C, h, w)."""
    first = places[0] if places else 0
    if places == tuple(range(first, first + len(places))):
        # As clips have them. Counted on the device, nothing is copied to it.
        return features[:, torch.arange(first, first + len(places), device=features.device)]
    return features[:, to_device(torch.tensor(places), features.device)]


def _without_shared_casts(device: str) -> torch.autocast:
    """Go on under the autocast that is set, if any, but keep no cast weights for later.

    torch 2.10 would hand those that are cast without gradient to the maps that layer4 is to train on.
    """
    return torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    )


def _generators(batch: ClipBatch) -> list[torch.Generator | None]:
    """Return one generator per clip where the batch carries seeds, so that draws do not depend on the batching."""
    if not batch.seeds:
        return [None] * len(batch.targets)
    return [torch.Generator().manual_seed(seed) for seed in batch.seeds]
