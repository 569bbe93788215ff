"""Random clips, small enough that every test of the model runs in moments."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lstfe.types import ClipBatch, ClipLayout, Targets

IMAGE_SIZE = (64, 96)
LAYOUT = ClipLayout(alignment=(1, 2), relation=(1, 2), candidates=(3, 4, 5))


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
