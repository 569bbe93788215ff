"""A tiny network and random clips, small enough that every test of the model runs in moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lstfe.config import (
    AlignmentConfig,
    BackboneConfig,
    HeadConfig,
    ModelConfig,
    PixelAggregationConfig,
    ProposalConfig,
    RelationConfig,
    SelectionConfig,
)
from lstfe.model.detector import LSTFENet
from lstfe.types import ClipBatch, ClipLayout, Targets

NUM_CLASSES = 3
IMAGE_SIZE = (64, 96)
LAYOUT = ClipLayout(alignment=(1, 2), relation=(1, 2), candidates=(3, 4, 5))

TINY = ModelConfig(
    image_short_side=64,
    image_long_side=96,
    backbone=BackboneConfig(
        name="resnet18", width=16, feature_stride=8, feature_channels=24, layer4=False, reduce_channels=16
    ),
    proposals=ProposalConfig(
        anchor_sizes=(8.0, 16.0, 32.0),
        anchor_ratios=(0.5, 1.0),
        pre_nms_top_k=200,
        current_top_k=20,
        reference_top_k=10,
        anchors_per_image=32,
    ),
    alignment=AlignmentConfig(),
    pixel_aggregation=PixelAggregationConfig(),
    selection=SelectionConfig(num_frames=2),
    relation=RelationConfig(embedding=32, num_groups=4),
    head=HeadConfig(roi_size=3, rois_per_image=16, detections_per_frame=20),
)


@pytest.fixture
def tiny() -> Callable[..., ModelConfig]:
    """Return the tiny configuration with keys of a section replaced: tiny(alignment={"num_blocks": 2})."""

    def build(**sections: dict[str, Any]) -> ModelConfig:
        changed = {name: replace(getattr(TINY, name), **keys) for name, keys in sections.items()}
        return replace(TINY, **changed)

    return build


@pytest.fixture
def build_model() -> Callable[..., LSTFENet]:
    """Return a builder of networks with random weights everywhere, also where training starts from zero."""

    def build(config: ModelConfig = TINY, *, seed: int = 0) -> LSTFENet:
        torch.manual_seed(seed)
        return randomise(LSTFENet(config, NUM_CLASSES), seed)

    return build


def randomise(model: LSTFENet, seed: int) -> LSTFENet:
    """Give every part an influence: offsets of about a cell, attention that differs, detections apart."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("backbone", "reduce", "fc0")):
                continue
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 16
            # Location gates stay near their initial 0.01: sin(100 log(|dx| / w + 0.001)) turns the rounding
            # of equal centers into visible differences, which tests of two ways of computing would see.
            small = ".location." in name or "box_deltas" in name
            gain = 0.1 if small else 4.0 if name.startswith("proposal_network.objectness") else 1.0
            parameter.normal_(std=gain / fan_in**0.5, generator=generator)
            if name.endswith("location.linear.bias"):
                parameter.add_(0.5)
        # Two labels that want opposite things: whatever the features, one of them beats the background.
        classes = model.head.class_logits
        classes.bias.zero_()
        classes.weight.mul_(0.3)
        classes.weight[0] = 0
        classes.weight[2] = -classes.weight[1]
    return model


@pytest.fixture
def make_batch() -> Callable[..., ClipBatch]:
    """Return a builder of random clips of one size with two ground truths each."""

    def make(clips: int = 1, *, seed: int = 0, layout: ClipLayout = LAYOUT) -> ClipBatch:
        generator = torch.Generator().manual_seed(seed)
        frames = 1 + max((*layout.alignment, *layout.relation, *layout.candidates), default=0)
        images = torch.randn(clips, frames, 3, *IMAGE_SIZE, generator=generator)
        targets = []
        for _ in range(clips):
            corner = torch.rand(2, 2, generator=generator) * torch.tensor([60.0, 30.0])
            sides = 10 + 20 * torch.rand(2, 2, generator=generator)
            targets.append(Targets(torch.cat((corner, corner + sides), dim=1), torch.tensor([1, 2])))
        sizes = [IMAGE_SIZE] * clips
        return ClipBatch(images, layout, sizes, sizes, targets, seeds=list(range(seed, seed + clips)))

    return make
