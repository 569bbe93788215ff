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
    HeadConfig,
    InferenceConfig,
    ModelConfig,
    ProposalConfig,
    RelationConfig,
    RenderConfig,
    SelectionConfig,
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
        (
            ModelConfig,
            {"image_short_side": 800, "image_long_side": 600},
            "image_short_side <= image_long_side",
        ),
        (RelationConfig, {"distill_ratio": 0.0}, "distill_ratio must be more than 0 and at most 1, got 0.0"),
        (RelationConfig, {"num_groups": 0}, "relation.num_groups must be >= 1, got 0"),
        (BackboneConfig, {"reduce_channels": 0}, "backbone.reduce_channels must be >= 1, got 0"),
        (ProposalConfig, {"nms_iou": 7.0}, "proposals.nms_iou must be in 0..1, got 7.0"),
        (ProposalConfig, {"anchor_ratios": (1.0, float("nan"))}, "anchor_ratios must be positive numbers"),
        (HeadConfig, {"positive_fraction": -3.0}, "head.positive_fraction must be in 0..1, got -3.0"),
        (HeadConfig, {"box_weights": (10.0, 10.0, 0.0, 5.0)}, "head.box_weights must be positive numbers"),
        (TrainConfig, {"momentum": 9.0}, "train.momentum must be at least 0 and less than 1, got 9.0"),
        (TrainConfig, {"gamma": -1.0}, "train.gamma must be in 0..1, got -1.0"),
        (TrainConfig, {"max_gradient_norm": 0.0}, "train.max_gradient_norm must be > 0 and finite, got 0.0"),
        (TrainConfig, {"milestones": (4.0,)}, "train.milestones must be fractions in 0..1"),
        (TrainConfig, {"weight_decay": -1.0}, "train.weight_decay must be >= 0, got -1.0"),
        (TrainConfig, {"alignment_lr_factor": -1.0}, "train.alignment_lr_factor must be >= 0, got -1.0"),
        (TrainConfig, {"colour_jitter": 1.0}, "colour_jitter must be at least 0 and less than 1, got 1.0"),
        (TrainConfig, {"seed": -1}, "train.seed must be in 0"),
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
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(kind(), **values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (
            TrainConfig,
            {"max_gradient_norm": None, "milestones": (), "momentum": 0.0, "alignment_lr_factor": 0.0},
        ),
        (BackboneConfig, {"reduce_channels": None}),
        (RelationConfig, {"distill_ratio": 1.0, "stages": ()}),
        (SelectionConfig, {"num_frames": 0}),
    ],
)
def test_what_stands_for_none_or_all_is_accepted(kind: Any, values: dict[str, Any]) -> None:
    section = kind(**values)
    assert {name: getattr(section, name) for name in values} == values
