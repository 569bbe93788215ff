"""Random deformable convolutions, and torchvision's answer to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from deploy.plugin.operators import Grid, Pair


@dataclass(frozen=True, slots=True)
class Case:
    """The numbers that make a deformable convolution; its tensors follow from `seed`."""

    grid: Grid
    batch: int
    size: Pair
    groups: int
    offset_groups: int
    channels_per_group: int
    out_channels_per_group: int
    has_mask: bool
    has_bias: bool
    offset_scale: float
    """Standard deviation of the offsets, in cells."""
    seed: int

    @property
    def channels(self) -> int:
        """Input channels: a multiple of both kinds of groups."""
        return self.channels_per_group * math.lcm(self.groups, self.offset_groups)

    def output_size(self) -> Pair:
        """Return the output's height and width, not positive where the kernel does not fit."""
        grid = self.grid
        height, width = (
            (self.size[axis] + 2 * grid.padding[axis] - grid.dilation[axis] * (grid.kernel[axis] - 1) - 1)
            // grid.stride[axis]
            + 1
            for axis in (0, 1)
        )
        return height, width


@dataclass(frozen=True, slots=True)
class Tensors:
    """What a deformable convolution takes."""

    features: Tensor
    offsets: Tensor
    weight: Tensor
    bias: Tensor | None
    mask: Tensor | None

    def to(self, dtype: torch.dtype) -> Tensors:
        """Return features and weight rounded to a type; coordinates, masks and bias stay float32."""
        return replace(self, features=self.features.to(dtype), weight=self.weight.to(dtype))

    def on(self, device: torch.device) -> Tensors:
        """Return all of it on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def wholly(self, dtype: torch.dtype) -> Tensors:
        """Return all of it in one type, coordinates too: torchvision wants it so."""
        return self._each(lambda tensor: tensor.to(dtype))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Tensors:
        return Tensors(
            change(self.features),
            change(self.offsets),
            change(self.weight),
            None if self.bias is None else change(self.bias),
            None if self.mask is None else change(self.mask),
        )


def make(case: Case) -> Tensors:
    """Draw the tensors of a case; some offsets are exact cells, some far outside."""
    random = torch.Generator().manual_seed(case.seed)
    taps = case.grid.kernel[0] * case.grid.kernel[1]
    height, width = case.output_size()
    lead = (case.batch, case.offset_groups * taps)
    offsets = torch.randn(lead[0], 2 * lead[1], height, width, generator=random) * case.offset_scale
    kind = torch.randint(0, 10, offsets.shape, generator=random)
    offsets = torch.where(kind == 0, offsets.round(), offsets)
    offsets = torch.where(kind == 1, offsets * 1e6, offsets)
    group_channels = case.channels // case.groups
    out_channels = case.out_channels_per_group * case.groups
    weight = torch.randn(out_channels, group_channels, *case.grid.kernel, generator=random)
    return Tensors(
        torch.randn(case.batch, case.channels, *case.size, generator=random),
        offsets,
        weight / math.sqrt(group_channels * taps),  # an output's size does not grow with the sum behind it
        torch.randn(out_channels, generator=random) if case.has_bias else None,
        torch.rand(*lead, height, width, generator=random) if case.has_mask else None,
    )


def torchvision_answer(case: Case, tensors: Tensors, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return what torchvision computes, (N, O, h, w), all of it in one type."""
    given, grid = tensors.wholly(dtype), case.grid
    answer: Tensor = deform_conv2d(
        *(given.features, given.offsets, given.weight, given.bias),
        *(grid.stride, grid.padding, grid.dilation, given.mask),
    )
    return answer


def tap_maps(tensors: Tensors) -> Tensor:
    """Return W_p f for every tap p of a convolution without groups, as the sampled sum takes it: (N, H, W, K*O)."""
    maps: Tensor = torch.einsum("nchw,ockl->nhwklo", tensors.features, tensors.weight).flatten(3)
    return maps


KERNELS: tuple[Pair, ...] = ((1, 1), (3, 3), (3, 3), (1, 3), (5, 2))


def random_case(
    random: Random, *, max_side: int = 40, kernels: tuple[Pair, ...] = KERNELS, **fixed: Any
) -> Case:
    """Draw any deformable convolution whose output is not empty, on maps of 1 to `max_side` cells a side.

    `fixed` sets numbers of the case that are not to be drawn: `groups=1`.
    """

    def pair(least: int, most: int) -> Pair:
        return random.randint(least, most), random.randint(least, most)

    kernel = random.choice(kernels)
    grid = Grid(kernel=kernel, stride=pair(1, 3), padding=pair(0, 3), dilation=pair(1, 3))
    least = [max(1, grid.dilation[i] * (kernel[i] - 1) + 1 - 2 * grid.padding[i]) for i in (0, 1)]
    most = [max(max_side, side) for side in least]
    drawn = Case(
        grid=grid,
        batch=random.randint(1, 3),
        size=(random.randint(least[0], most[0]), random.randint(least[1], most[1])),
        groups=random.randint(1, 3),
        offset_groups=random.randint(1, 3),
        channels_per_group=random.randint(1, 6),
        out_channels_per_group=random.randint(1, 10),
        has_mask=random.random() < 0.5,
        has_bias=random.random() < 0.5,
        offset_scale=random.choice([0.0, 0.3, 2.0, 30.0]),
        seed=random.randint(0, 2**31),
    )
    return replace(drawn, **fixed)
