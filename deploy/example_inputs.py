"""Inputs of every graph for a random image: to trace it by, and to compare it with PyTorch on."""

from __future__ import annotations

import torch
from torch import Tensor

from deploy.commuted_alignment import SupportGraph
from deploy.graphs import Form, GraphSizes
from lstfe.config import Config
from lstfe.model.detector import LSTFENet


@torch.no_grad()
def random_inputs(
    name: str,
    model: LSTFENet,
    config: Config,
    form: Form = "plain",
    *,
    image_size: tuple[int, int] = (64, 96),
    seed: int = 0,
) -> tuple[Tensor, ...]:
    """Return inputs of a graph for a random image; `image_size` in multiples of 32 pixels."""
    generator = torch.Generator().manual_seed(seed)
    height, width = image_size
    sizes, size = GraphSizes.of(config), torch.tensor(image_size)

    def features(number: int) -> Tensor:
        return model.extract(torch.randn((number, 3, height, width), generator=generator))

    def proposals(number: int) -> tuple[Tensor, Tensor, Tensor]:
        corners = (
            torch.rand((1, number, 2, 2), generator=generator).sort(dim=2).values
        )  # (..., corner, x or y)
        boxes = corners.flatten(2) * torch.tensor([width, height, width, height])
        valid = torch.arange(number)[None] < max(1, number - 2)  # a little padding
        vectors = torch.randn((1, number, config.model.relation.embedding), generator=generator).relu()
        return vectors, boxes * valid[:, :, None], valid

    if name == "preprocess":  # a size that has to be scaled and padded
        return (torch.randint(256, (height * 5 // 4, width + 7, 3), generator=generator, dtype=torch.uint8),)
    if name == "backbone":
        return (torch.randn((1, 3, height, width), generator=generator),)
    if name == "support":
        return (features(1),)
    if name == "align":
        current, short_term = features(1), features(sizes.num_alignment)
        if form == "plain":
            return current, short_term[None]
        frames = [SupportGraph(model)(frame[None]) for frame in short_term]
        support = [torch.cat(part)[None] for part in zip(*frames, strict=True)]
        return current, *([short_term[None]] if config.model.alignment.num_blocks > 1 else []), *support
    maps = model.describe(features(1))
    current_proposals = proposals(sizes.num_proposals)
    if name == "proposals":
        return maps.objectness, maps.box_deltas, size
    if name == "roi":
        return maps.roi_map, current_proposals[1]
    if name == "relation":
        related = proposals(sizes.num_relation * sizes.num_reference_proposals) if sizes.num_relation else ()
        long_term = (
            proposals(sizes.num_long_term * sizes.num_reference_proposals) if sizes.num_long_term else ()
        )
        return (*current_proposals, *related, *long_term)
    # A spread of scores that a trained head has and a fresh one has not.
    logits = torch.randn((1, sizes.num_proposals, model.head.num_classes), generator=generator) * 3
    deltas = torch.randn((1, sizes.num_proposals, model.head.num_classes * 4), generator=generator)
    return logits, deltas, *current_proposals[1:], size, size * 2
