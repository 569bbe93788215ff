"""What tests of many parts share: a tiny rendered data set, as received and prepared, and a tiny network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lstfe.config import (
    BackboneConfig,
    HeadConfig,
    ModelConfig,
    PrepareConfig,
    ProposalConfig,
    RelationConfig,
    RenderConfig,
    SelectionConfig,
)
from lstfe.data.prepare import prepare_data_set
from lstfe.data.rendering.renderer import render_data_set

if TYPE_CHECKING:  # torch takes seconds to load, and many tests do without
    from lstfe.model.detector import LSTFENet

TINY_RENDER = RenderConfig(
    num_train_videos=2,
    num_val_videos=1,
    num_test_videos=1,
    num_frames=16,
    image_size=(64, 96),
    drone_size_px=(10.0, 24.0),
    drone_speed_px=(0.5, 2.0),
    num_branches=1,
)


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw data set, shared, so read only: 2 train, 1 val, 1 test videos of 16 frames, 64x96 pixels."""
    destination = tmp_path_factory.mktemp("data") / "raw"
    render_data_set(TINY_RENDER, destination)
    return destination


@pytest.fixture(scope="session")
def tiny_prepared(tiny_raw: Path) -> Path:
    """The same data set, prepared; shared, so read only."""
    destination = tiny_raw.with_name("prepared")
    prepare_data_set(tiny_raw, destination, PrepareConfig())
    return destination


TINY_MODEL = ModelConfig(
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
    selection=SelectionConfig(num_frames=2),
    relation=RelationConfig(embedding=32, num_groups=4),
    head=HeadConfig(roi_size=3, rois_per_image=16, detections_per_frame=20),
)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., ModelConfig]:
    """Return the tiny network's configuration, keys of a section replaced: tiny(alignment={"num_blocks": 2})."""

    def build(**sections: dict[str, Any]) -> ModelConfig:
        changed = {name: replace(getattr(TINY_MODEL, name), **keys) for name, keys in sections.items()}
        return replace(TINY_MODEL, **changed)

    return build


@pytest.fixture(scope="session")
def build_model() -> Callable[..., LSTFENet]:
    """Return a builder of networks of two categories, with random weights also where training starts from zero."""

    def build(config: ModelConfig = TINY_MODEL, *, seed: int = 0) -> LSTFENet:
        import torch

        from lstfe.model.detector import LSTFENet

        torch.manual_seed(seed)
        model = LSTFENet(config, 3)
        randomise(model, seed)
        return model

    return build


def randomise(model: LSTFENet, seed: int) -> None:
    """Give every part an influence: offsets of about a cell, attention that differs, detections apart."""
    import torch

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
