"""Random maps of a region proposal network, and the model's own answer to them.

Boxes of the model and of the library agree to the last bit on these: numbers are used whose exp PyTorch rounds
correctly, as the library does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

import torch
from torch import Tensor

from deploy.plugin.operators import Pair
from lstfe.boxes import MAX_LOG_SCALE
from lstfe.config import ProposalConfig
from lstfe.model.proposals import ProposalNetwork
from lstfe.types import Proposals

THRESHOLDS = (0.0, 0.25, 0.3, 0.5, 0.7, 0.9, 1.0)
SIZES = (4.0, 16.0, 20.0, 64.0, 300.0)
RATIOS = (0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True)
class ProposalCase:
    """The numbers that make a frame's proposals; its maps follow from `seed`."""

    config: ProposalConfig
    size: Pair
    """The map, in cells."""
    stride: int
    image_size: Pair
    top_k: int
    levels: int
    """How many different logits there are: few make many ties."""
    spread: float
    """Standard deviation of the box deltas; 0 leaves the anchors as they are."""
    seed: int

    @property
    def num_anchors(self) -> int:
        """Anchors a cell."""
        return len(self.config.anchor_sizes) * len(self.config.anchor_ratios)

    def network(self) -> ProposalNetwork:
        """Return a network with the case's anchors; its convolutions have one channel and are not used."""
        return ProposalNetwork(1, self.stride, self.config)


@dataclass(frozen=True, slots=True)
class Maps:
    """What the proposals are made of."""

    objectness: Tensor
    """(1, A, h, w)"""
    box_deltas: Tensor
    """(1, 4*A, h, w)"""


def make(case: ProposalCase) -> Maps:
    """Draw the maps of a case: logits with ties and both zeros, log scales some of which are far too large."""
    random = torch.Generator().manual_seed(case.seed)
    shape = (case.num_anchors, *case.size)
    values = torch.randn(case.levels, generator=random) * 4
    values[0] = 0.0
    objectness = values[torch.randint(case.levels, shape, generator=random)]
    signs = torch.where(torch.rand(shape, generator=random) < 0.5, -1.0, 1.0)
    objectness = torch.where(objectness == 0, objectness * signs, objectness)  # 0 and -0 are alike
    shifts = torch.randn((case.num_anchors, 2, *case.size), generator=random) * case.spread
    pool = exact_log_scales()
    chosen = pool[torch.randint(len(pool), shifts.shape, generator=random)]
    scales = chosen if case.spread else torch.zeros_like(chosen)
    return Maps(objectness[None], torch.cat((shifts, scales), dim=1).flatten(0, 1)[None])


@cache
def exact_log_scales() -> Tensor:
    """Return log scales whose exp this machine's PyTorch rounds correctly, alone and in long rows."""
    random = torch.Generator().manual_seed(0)
    values = torch.cat((torch.randn(2048, generator=random), torch.tensor([0.0, MAX_LOG_SCALE, 9.0])))
    bounded = values.clamp(max=MAX_LOG_SCALE)
    right = torch.tensor([math.exp(value) for value in bounded.tolist()], dtype=torch.float64).float()
    apart = torch.cat([value.exp() for value in bounded.split(1)])
    return values[(bounded.exp() == right) & (apart == right)]


def models_answer(case: ProposalCase, maps: Maps) -> Proposals:
    """Return what the model proposes: boxes (1, K, 4), valid (1, K)."""
    return case.network().propose(maps.objectness, maps.box_deltas, [case.image_size], top_k=case.top_k)


def random_case(random: Random, *, max_side: int = 60, **fixed: Any) -> ProposalCase:
    """Draw any proposals, on maps of 1 to `max_side` cells a side; `fixed` sets numbers that are not to be drawn."""
    size = random.randint(1, max_side), random.randint(1, max_side)
    stride = random.choice([1, 8, 16])
    config = ProposalConfig(
        anchor_sizes=SIZES[: random.randint(1, len(SIZES))],
        anchor_ratios=RATIOS[: random.randint(1, len(RATIOS))],
        nms_iou=random.choice(THRESHOLDS),
        pre_nms_top_k=random.choice([1, 7, 64, 65, 200, 500, 1000]),
        min_size_px=random.choice([0.0, 0.0, 0.0, 6.5, 6.5, 1e4]),
    )
    drawn = ProposalCase(
        config=config,
        size=size,
        stride=stride,
        image_size=(random.randint(1, size[0] * stride), random.randint(1, size[1] * stride)),
        top_k=random.choice([1, 20, 64, 70, 300]),
        levels=random.choice([1, 2, 50, 10**6]),
        spread=random.choice([0.0, 0.3, 2.0]),
        seed=random.randint(0, 2**31),
    )
    return replace(drawn, **fixed)


def frame_case(size: Pair, *, pre_nms_top_k: int, top_k: int) -> ProposalCase:
    """Return the proposals of one frame of a detector of stride 16 with 15 anchors a cell."""
    return ProposalCase(
        config=ProposalConfig(pre_nms_top_k=pre_nms_top_k),
        size=size,
        stride=16,
        image_size=(16 * size[0], 16 * size[1]),
        top_k=top_k,
        levels=10**6,
        spread=0.3,
        seed=0,
    )
