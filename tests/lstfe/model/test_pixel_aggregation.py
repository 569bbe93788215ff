"""Pixel-level aggregation against the explicit concatenation of Fig. 2c."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lstfe.config import PixelAggregationConfig
from lstfe.model.pixel_aggregation import PixelAggregation

CLIPS, FRAMES, CHANNELS, HEIGHT, WIDTH = 2, 3, 8, 4, 5
VARIANTS = ["lite", "paper", "authors", "cosine"]


def build(weights: str, *, include_current: bool = False) -> PixelAggregation:
    torch.manual_seed(1)
    config = PixelAggregationConfig(weights=weights, include_current=include_current)  # type: ignore[arg-type]
    module = PixelAggregation(CHANNELS, config)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def maps(*, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    current = torch.randn(CLIPS, CHANNELS, HEIGHT, WIDTH, generator=generator)
    return current, torch.randn(CLIPS, frames, CHANNELS, HEIGHT, WIDTH, generator=generator)


def explicit_logits(module: PixelAggregation, current: Tensor, frame: Tensor) -> Tensor:
    """rho of eq. 1 on f_multi, with the concatenation written out: (C, h, w), (C, h, w) -> (C or 1, h, w)."""
    mask = module.mask
    if not list(mask.parameters()):
        return loop_cosine(current, frame)
    if hasattr(mask, "embed"):
        current, frame = (unit_columns(mask.embed(part[None])[0]) for part in (current, frame))
        mask = mask.mask
    f_multi = torch.cat((current - frame, frame - current, current, frame))[None]
    logits: Tensor = mask.fuse(F.relu(mask.squeeze(f_multi)))[0]
    return logits


def unit_columns(features: Tensor) -> Tensor:
    return features / features.square().sum(dim=0, keepdim=True).sqrt()


def loop_cosine(current: Tensor, frame: Tensor) -> Tensor:
    similarity = torch.zeros(1, HEIGHT, WIDTH)
    for y, x in itertools.product(range(HEIGHT), range(WIDTH)):
        a, b = current[:, y, x].tolist(), frame[:, y, x].tolist()
        dot = sum(p * q for p, q in zip(a, b, strict=True))
        similarity[0, y, x] = dot / math.sqrt(sum(p * p for p in a)) / math.sqrt(sum(q * q for q in b))
    return similarity


@torch.no_grad()
@pytest.mark.parametrize("weights", VARIANTS)
@pytest.mark.parametrize("include_current", [False, True])
def test_the_enhanced_map_equals_the_explicit_concatenation(weights: str, include_current: bool) -> None:
    module = build(weights, include_current=include_current)
    current, aligned = maps()
    for clip in range(CLIPS):
        frames = [current[clip]] * include_current + list(aligned[clip])
        exponents = [explicit_logits(module, current[clip], frame).exp() for frame in frames]
        total = sum(exponents)
        expected = sum(e / total * frame for e, frame in zip(exponents, frames, strict=True))
        torch.testing.assert_close(module(current, aligned)[clip], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("weights", "channels"), [("lite", 1), ("paper", CHANNELS), ("authors", CHANNELS), ("cosine", 1)]
)
def test_weights_are_a_share_at_every_channel_and_cell(weights: str, channels: int) -> None:
    shares = build(weights).weights(*maps())
    assert shares.shape == (CLIPS, FRAMES, channels, HEIGHT, WIDTH)
    assert (shares > 0).all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(CLIPS, channels, HEIGHT, WIDTH))


@torch.no_grad()
@pytest.mark.parametrize("weights", VARIANTS)
def test_equal_aligned_frames_are_their_own_sum(weights: str) -> None:
    current, aligned = maps()
    same = aligned[:, :1].expand_as(aligned)
    torch.testing.assert_close(build(weights)(current, same), aligned[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("weights", VARIANTS)
@pytest.mark.parametrize("include_current", [False, True])
def test_the_order_of_the_aligned_frames_changes_nothing(weights: str, include_current: bool) -> None:
    module = build(weights, include_current=include_current)
    current, aligned = maps()
    torch.testing.assert_close(module(current, aligned[:, [2, 0, 1]]), module(current, aligned))


@torch.no_grad()
@pytest.mark.parametrize("weights", VARIANTS)
def test_one_aligned_frame_alone_replaces_the_current_one_unless_that_takes_part(weights: str) -> None:
    current, aligned = maps(frames=1)
    assert torch.equal(build(weights)(current, aligned), aligned[:, 0])
    mixed = build(weights, include_current=True)(current, aligned)
    low, high = torch.minimum(current, aligned[:, 0]), torch.maximum(current, aligned[:, 0])
    assert ((mixed >= low - 1e-5) & (mixed <= high + 1e-5)).all()
    assert not torch.allclose(mixed, aligned[:, 0])


@pytest.mark.parametrize("weights", VARIANTS)
@pytest.mark.parametrize("include_current", [False, True])
def test_all_zero_features_give_finite_values_and_gradients(weights: str, include_current: bool) -> None:
    module = build(weights, include_current=include_current)
    if weights == "authors":
        nn.init.zeros_(module.mask.embed.bias)  # so that the embedded column is zero as well
    current, aligned = (torch.zeros_like(part).requires_grad_() for part in maps())
    enhanced = module(current, aligned)
    enhanced.square().sum().backward()
    assert torch.equal(enhanced, torch.zeros_like(enhanced))
    assert all(grad is not None and grad.isfinite().all() for grad in (current.grad, aligned.grad))
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@torch.no_grad()
@pytest.mark.parametrize("weights", VARIANTS)
def test_a_batch_of_two_equals_two_batches_of_one(weights: str) -> None:
    module = build(weights, include_current=True)
    current, aligned = maps()
    alone = torch.cat([module(current[i : i + 1], aligned[i : i + 1]) for i in range(CLIPS)])
    torch.testing.assert_close(module(current, aligned), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "shapes"),
    [
        ("lite", [(64, 4 * CHANNELS, 1, 1), (1, 64, 3, 3)]),
        ("paper", [(CHANNELS // 4, 4 * CHANNELS, 1, 1), (CHANNELS, CHANNELS // 4, 3, 3)]),
        (
            "authors",
            [(2 * CHANNELS, CHANNELS, 3, 3), (CHANNELS, 8 * CHANNELS, 3, 3), (CHANNELS, CHANNELS, 3, 3)],
        ),
        ("cosine", []),
    ],
)
def test_each_mask_function_has_the_layers_of_its_name(weights: str, shapes: list[tuple[int, ...]]) -> None:
    layers = [layer for layer in build(weights).modules() if isinstance(layer, nn.Conv2d)]
    assert [tuple(layer.weight.shape) for layer in layers] == shapes
