"""Alignment against loops over pixels, torchvision's deformable convolution, and identities."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from lstfe.config import AlignmentConfig
from lstfe.model.alignment import FeatureAlignment, SupportMaps, sampled_sum, tap_maps

CHANNELS, HEIGHT, WIDTH = 4, 5, 6


def bilinear_sample(features: Tensor, y: float, x: float) -> Tensor:
    """Sample (C, h, w) at one point by the definition; outside the map is zero."""
    value = features.new_zeros(len(features))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < features.shape[1] and 0 <= column < features.shape[2]:
                value = value + (1 - abs(y - row)) * (1 - abs(x - column)) * features[:, row, column]
    return value


def loop_deform_conv(features: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Deformable convolution, cell by cell and tap by tap: (C, h, w), (2*K*K, h, w) -> (C', h, w)."""
    kernel = weight.shape[-1]
    result = features.new_zeros(len(weight), *features.shape[1:])
    for y, x in itertools.product(range(features.shape[1]), range(features.shape[2])):
        for tap_y, tap_x in itertools.product(range(kernel), range(kernel)):
            tap = tap_y * kernel + tap_x
            dy, dx = offsets[2 * tap : 2 * tap + 2, y, x].tolist()
            point = bilinear_sample(features, y + tap_y - kernel // 2 + dy, x + tap_x - kernel // 2 + dx)
            result[:, y, x] += weight[:, :, tap_y, tap_x] @ point
    return result


def build(*, num_blocks: int = 1, kernel_size: int = 3, spread: float = 1.0) -> FeatureAlignment:
    """Return an alignment whose offsets are of about `spread` cells and whose weights are random."""
    torch.manual_seed(num_blocks * 10 + kernel_size)
    config = AlignmentConfig(num_blocks=num_blocks, kernel_size=kernel_size)
    module = FeatureAlignment(CHANNELS, config).double()  # cascaded offsets magnify rounding
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)
        for conv in module.offset_convs:
            conv.weight.mul_(spread / 2)
    return module


def maps(clips: int = 2, frames: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    current = torch.randn(clips, CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    short_term = torch.randn(clips, frames, CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    return current, short_term


def with_fixed_offsets(module: FeatureAlignment, dy: float, dx: float) -> FeatureAlignment:
    """Make every tap's offset (dy, dx), whatever the features."""
    with torch.no_grad():
        for conv in module.offset_convs:
            conv.weight.zero_()
            conv.bias.copy_(torch.tensor([dy, dx]).repeat(module.kernel_size**2))
    return module


def test_no_short_term_frame_gives_no_aligned_map() -> None:
    current, short_term = maps(frames=0)
    assert build()(current, short_term).shape == (2, 0, CHANNELS, HEIGHT, WIDTH)


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("spread", [0.7, 3.0, 40.0])
def test_the_commuted_sum_equals_loops_and_torchvision(kernel_size: int, spread: float) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, CHANNELS, HEIGHT, WIDTH)
    weight = torch.randn(7, CHANNELS, kernel_size, kernel_size)
    offsets = torch.randn(2, 2 * kernel_size**2, HEIGHT, WIDTH) * spread
    offsets[0, :, 0] = -1.0  # whole cells, and points exactly on the border of the zeros
    offsets[1, :, :, 0] = 1e6
    commuted = sampled_sum(tap_maps(features, weight), offsets, (HEIGHT, WIDTH), kernel_size)
    loops = torch.stack([loop_deform_conv(f, o, weight) for f, o in zip(features, offsets, strict=True)])
    plain = deform_conv2d(features, offsets, weight, padding=kernel_size // 2)
    torch.testing.assert_close(commuted, loops, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(commuted, plain, rtol=1e-5, atol=1e-5)


def literal_alignment(module: FeatureAlignment, current: Tensor, short_term: Tensor) -> Tensor:
    """SPEC's recursion a_i = DeformConv(a_(i-1); m_i) for one frame: (C, h, w), (C, h, w) -> (C, h, w)."""
    pair = torch.cat((current, short_term))
    for block in range(module.num_blocks):
        conv = module.offset_convs[block]
        offsets = F.conv2d(pair[None], conv.weight, conv.bias, padding=1)[0]
        if block < module.num_blocks - 1:
            pair = loop_deform_conv(pair, offsets, module.mixing_weights[block])
    return loop_deform_conv(short_term, offsets, module.weight) + module.bias[:, None, None]


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("num_blocks", [1, 2, 4])
def test_k_blocks_equal_the_papers_recursion_written_in_loops(num_blocks: int, kernel_size: int) -> None:
    module = build(num_blocks=num_blocks, kernel_size=kernel_size)
    current, short_term = maps(clips=1, frames=2)
    expected = [literal_alignment(module, current[0], frame) for frame in short_term[0]]
    torch.testing.assert_close(module(current, short_term)[0], torch.stack(expected))


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("num_blocks", [1, 2, 4])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_both_forms_agree_forward_and_backward(num_blocks: int, kernel_size: int, spread: float) -> None:
    module = build(num_blocks=num_blocks, kernel_size=kernel_size, spread=spread)
    assert_same_gradients(module)


def test_both_forms_have_the_same_gradient_at_the_zero_offsets_that_training_starts_from() -> None:
    # At whole cells the bilinear kernel has a corner; another slope there would learn something else.
    torch.manual_seed(0)
    assert_same_gradients(FeatureAlignment(CHANNELS, AlignmentConfig()).double())


def assert_same_gradients(module: FeatureAlignment) -> None:
    outcomes = []
    for form in (lambda c, s: module.align(c, module.prepare(s)), module.align_directly):
        current, short_term = (part.requires_grad_() for part in maps())
        module.zero_grad()
        aligned = form(current, short_term)
        (aligned * torch.linspace(-1, 1, aligned.numel()).reshape(aligned.shape)).sum().backward()
        gradients = [parameter.grad.clone() for parameter in module.parameters()]
        outcomes.append([aligned.detach(), current.grad, short_term.grad, *gradients])
    for commuted, plain in zip(*outcomes, strict=True):
        torch.testing.assert_close(commuted, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_zero_offsets_are_a_plain_convolution_with_the_same_weights(kernel_size: int) -> None:
    module = with_fixed_offsets(build(kernel_size=kernel_size), 0.0, 0.0)
    current, short_term = maps()
    plain = F.conv2d(short_term.flatten(0, 1), module.weight, module.bias, padding=kernel_size // 2)
    torch.testing.assert_close(module(current, short_term).flatten(0, 1), plain)


def test_training_starts_from_the_short_term_frames_themselves() -> None:
    current, short_term = maps()
    module = FeatureAlignment(CHANNELS, AlignmentConfig(num_blocks=3)).double()
    assert torch.equal(module(current, short_term), short_term)


@pytest.mark.parametrize(("dy", "dx"), [(0, 2), (-1, 0), (1, -2)])
def test_whole_offsets_shift_the_input(dy: int, dx: int) -> None:
    module = with_fixed_offsets(FeatureAlignment(CHANNELS, AlignmentConfig()).double(), dy, dx)
    current, short_term = maps()
    # Outside the map is zero, so the shift of the zero-padded frame holds up to the border.
    padded = F.pad(short_term, (2, 2, 2, 2))
    shifted = padded[..., 2 + dy : 2 + dy + HEIGHT, 2 + dx : 2 + dx + WIDTH]
    torch.testing.assert_close(module(current, short_term), shifted)


def test_a_batch_of_two_equals_two_batches_of_one() -> None:
    module = build(num_blocks=2)
    current, short_term = maps()
    alone = [module(current[i : i + 1], short_term[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(module(current, short_term), torch.cat(alone))


@torch.no_grad()
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_frames_prepared_one_by_one_align_as_they_do_together(num_blocks: int) -> None:
    module = build(num_blocks=num_blocks)
    current, short_term = maps(clips=1)
    parts = [module.prepare(short_term[:, i : i + 1]) for i in range(short_term.shape[1])]
    joined = SupportMaps(
        *(torch.cat([getattr(part, name) for part in parts], 1) for name in SupportMaps.__dataclass_fields__)
    )
    torch.testing.assert_close(module.align(current, joined), module(current, short_term))


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_last_block_has_offsets_but_no_mixture(kernel_size: int) -> None:
    module = FeatureAlignment(CHANNELS, AlignmentConfig(num_blocks=3, kernel_size=kernel_size))
    taps = kernel_size**2
    assert [conv.weight.shape for conv in module.offset_convs] == [(2 * taps, 2 * CHANNELS, 3, 3)] * 3
    expected = [(2 * CHANNELS, 2 * CHANNELS, kernel_size, kernel_size)] * 2
    assert [tuple(weight.shape) for weight in module.mixing_weights] == expected


def test_half_precision_maps_are_sampled_where_the_offsets_say() -> None:
    # bfloat16 counts in steps of 2 past 256: coordinates in it would miss the cells of a wide map.
    torch.manual_seed(0)
    taps, offsets = torch.randn(1, 1, 2 * 400, 3).bfloat16(), torch.randn(1, 2, 2, 400).bfloat16()
    found = sampled_sum(taps, offsets, (2, 400), 1)
    expected = sampled_sum(taps.float(), offsets.float(), (2, 400), 1)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_offsets_that_are_not_finite_see_nothing(value: float, kernel_size: int) -> None:
    torch.manual_seed(0)
    num_taps = kernel_size**2
    taps, offsets = torch.randn(1, num_taps, 4 * 5, 3), torch.randn(1, 2 * num_taps, 4, 5)
    broken, unseen = offsets.clone(), offsets.clone()
    broken[0, 0, 1], broken[0, 1, 2], broken[0, :, 3] = value, value, value
    unseen[0, 0, 1], unseen[0, 1, 2], unseen[0, :, 3] = 99.0, 99.0, 99.0
    found = sampled_sum(taps, broken.requires_grad_(), (4, 5), kernel_size)
    assert torch.equal(found, sampled_sum(taps, unseen, (4, 5), kernel_size))
    found.sum().backward()
    assert broken.grad is not None
    assert torch.isfinite(broken.grad).all()
