"""A training small enough for a test: the real model, narrow, on 64x96 frames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from lstfe.config import (
    BackboneConfig,
    Config,
    HeadConfig,
    ModelConfig,
    ProposalConfig,
    RelationConfig,
    SamplingConfig,
    TrainConfig,
)


@pytest.fixture(autouse=True, scope="session")
def on_the_cpu() -> Iterator[None]:
    """Bits are promised on the CPU only: machines with a GPU test the same thing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Eight updates of two clips, a checkpoint every third, a line of metrics each."""
    return Config(
        model=ModelConfig(
            image_short_side=64,
            image_long_side=96,
            backbone=BackboneConfig(
                name="resnet18",
                width=16,
                feature_stride=8,
                feature_channels=16,
                layer4=False,
                reduce_channels=8,
            ),
            proposals=ProposalConfig(
                anchor_sizes=(8.0, 14.0, 24.0),
                anchor_ratios=(0.5, 1.0),
                anchors_per_image=32,
                pre_nms_top_k=100,
                current_top_k=20,
                reference_top_k=6,
            ),
            relation=RelationConfig(embedding=16, num_groups=2),
            head=HeadConfig(rois_per_image=16, detections_per_frame=10),
        ),
        sampling=SamplingConfig(short_term_range=3, num_short_term=2, num_candidates=2),
        train=TrainConfig(
            iterations=8,
            batch_size=2,
            optimizer="adamw",
            schedule="one_cycle",
            lr=1e-3,
            lr_batch_size=2,
            warmup_iterations=2,
            still_iterations=2,
            max_gradient_norm=10.0,
            num_workers=0,
            log_every=1,
            checkpoint_every=3,
            validation_frames=0,
        ),
    )
