"""Configuration is refused at birth when it is impossible, and never changes after."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lstfe.config import (
    AlignmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    EvaluateConfig,
    InferenceConfig,
    ModelConfig,
    ProposalConfig,
    RelationConfig,
    RenderConfig,
    TrainConfig,
)


def test_a_config_cannot_be_changed_after_birth() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().train.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (DataConfig, {"name": "../elsewhere"}, "data.name must be a folder name"),
        (DataConfig, {"name": ""}, "data.name must be a folder name"),
        (DataConfig, {"max_bad_fraction": 1.5}, "data.max_bad_fraction must be in 0..1, got 1.5"),
        (RenderConfig, {"image_size": (241, 320)}, "render.image_size must be two even numbers"),
        (RenderConfig, {"drone_size_px": (40.0, 8.0)}, r"render.drone_size_px"),
        (InferenceConfig, {"lookahead": -1}, "inference.lookahead must be >= 0, got -1"),
        (InferenceConfig, {"alignment_gap": 0}, "inference.alignment_gap must be >= 1, got 0"),
        (BackboneConfig, {"name": "resnet18", "width": 8}, "a multiple of 8, at least 16, got 8"),
        (BackboneConfig, {"name": "resnet50", "width": 32}, "needs basic blocks"),
        (BackboneConfig, {"name": "resnet18", "width": 32, "weights": "imagenet"}, "exist for width 64 only"),
        (ProposalConfig, {"anchor_sizes": ()}, "proposals.anchor_sizes must be positive numbers"),
        (ProposalConfig, {"negative_iou": 0.8}, "0 <= negative_iou <= positive_iou <= 1"),
        (AlignmentConfig, {"num_blocks": -1}, "alignment.num_blocks must be >= 0"),
        (RelationConfig, {"embedding": 100, "num_groups": 16}, "must be a multiple of relation.num_groups"),
        (RelationConfig, {"distill_ratio": 0.0}, "relation.distill_ratio"),
        (
            ModelConfig,
            {"image_short_side": 800, "image_long_side": 600},
            "image_short_side <= image_long_side",
        ),
        (TrainConfig, {"lr": 0.0}, "train.lr must be > 0"),
        (TrainConfig, {"lr": float("nan")}, "train.lr must be > 0"),
        (TrainConfig, {"lr": float("inf")}, "train.lr must be > 0 and finite, got inf"),
        (
            TrainConfig,
            {"seed": 2**63},
            r"train.seed must be in 0\.\.9223372036854775807, got 92233720368547758",
        ),
        (RenderConfig, {"seed": -1}, "render.seed must be in 0"),
        (InferenceConfig, {"seed": 2**63}, "inference.seed must be in 0"),
        (EvaluateConfig, {"seed": -1}, "evaluate.seed must be in 0"),
        (TrainConfig, {"flip_probability": 1.5}, "train.flip_probability must be in 0..1"),
        (EvaluateConfig, {"protocols": ()}, "evaluate.protocols must name at least one protocol"),
        (EvaluateConfig, {"frame_stride": 0}, "evaluate.frame_stride must be >= 1"),
    ],
)
def test_impossible_values_are_refused_at_birth(kind: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)
