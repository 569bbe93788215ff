"""Anchors, region proposals and their losses against loops over cells, sizes and ratios."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lstfe import boxes as box_geometry
from lstfe.config import ProposalConfig
from lstfe.model import losses
from lstfe.model.proposals import ProposalNetwork, cell_anchors, flatten_maps
from lstfe.types import Proposals, Targets

CHANNELS, STRIDE, MAP_SIZE = 6, 8, (4, 6)
IMAGE_SIZE = (32, 48)
CONFIG = ProposalConfig(
    anchor_sizes=(8.0, 16.0),
    anchor_ratios=(0.5, 1.0, 2.0),
    anchors_per_image=24,
    pre_nms_top_k=80,
    current_top_k=15,
    reference_top_k=5,
)


def build(config: ProposalConfig = CONFIG) -> ProposalNetwork:
    torch.manual_seed(0)
    return ProposalNetwork(CHANNELS, STRIDE, config)


def random_maps(clips: int = 2, spread: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(clips, 6, *MAP_SIZE, generator=generator) * 3, spread * torch.randn(
        clips, 24, *MAP_SIZE, generator=generator
    )


def loop_anchors(config: ProposalConfig, map_size: tuple[int, int]) -> list[list[float]]:
    """Every anchor, row by row, cell by cell, size by size, ratio by ratio; ratio = height / width."""
    anchors = []
    for row, column in itertools.product(range(map_size[0]), range(map_size[1])):
        x, y = (column + 0.5) * STRIDE, (row + 0.5) * STRIDE
        for size, ratio in itertools.product(config.anchor_sizes, config.anchor_ratios):
            width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
            anchors.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return anchors


def test_anchors_equal_loops_over_cells_sizes_and_ratios() -> None:
    anchors = build().anchors(MAP_SIZE)
    torch.testing.assert_close(anchors, torch.tensor(loop_anchors(CONFIG, MAP_SIZE)))


def test_every_anchor_has_its_size_as_the_root_of_its_area() -> None:
    roots = box_geometry.area(cell_anchors(CONFIG)).sqrt()
    torch.testing.assert_close(roots, torch.tensor([8.0] * 3 + [16.0] * 3))


def test_flattened_maps_are_in_the_order_of_the_anchors() -> None:
    objectness, box_deltas = random_maps()
    logits, deltas = flatten_maps(objectness, box_deltas)
    for place, (row, column, anchor) in enumerate(itertools.product(range(4), range(6), range(6))):
        assert torch.equal(logits[:, place], objectness[:, anchor, row, column])
        assert torch.equal(deltas[:, place], box_deltas[:, 4 * anchor : 4 * anchor + 4, row, column])


def loop_propose(config: ProposalConfig, logits: Tensor, deltas: Tensor, top_k: int) -> list[list[float]]:
    """Greedy suppression, written out: best first, drop what overlaps a kept box."""
    anchors = loop_anchors(config, MAP_SIZE)
    order = sorted(range(len(anchors)), key=lambda i: -logits[i].item())[: config.pre_nms_top_k]
    kept: list[list[float]] = []
    for index in order:
        x1, y1, x2, y2 = anchors[index]
        dx, dy, log_width, log_height = deltas[index].tolist()
        x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
        width, height = (x2 - x1) * math.exp(log_width), (y2 - y1) * math.exp(log_height)
        box = [
            min(max(x - width / 2, 0), IMAGE_SIZE[1]),
            min(max(y - height / 2, 0), IMAGE_SIZE[0]),
            min(max(x + width / 2, 0), IMAGE_SIZE[1]),
            min(max(y + height / 2, 0), IMAGE_SIZE[0]),
        ]
        if min(box[2] - box[0], box[3] - box[1]) <= max(config.min_size_px, 1e-3):
            continue
        if (box_geometry.iou(torch.tensor([box]), torch.tensor(kept).reshape(-1, 4)) <= config.nms_iou).all():
            kept.append(box)
    return kept[:top_k]


@pytest.mark.parametrize(("nms_iou", "min_size_px"), [(0.7, 0.0), (0.3, 0.0), (0.7, 9.0)])
@pytest.mark.parametrize("top_k", [5, 15, 200])
def test_proposals_equal_greedy_suppression_in_loops(top_k: int, nms_iou: float, min_size_px: float) -> None:
    config = ProposalConfig(
        anchor_sizes=CONFIG.anchor_sizes, pre_nms_top_k=80, nms_iou=nms_iou, min_size_px=min_size_px
    )
    objectness, box_deltas = random_maps()
    proposals = build(config).propose(objectness, box_deltas, [IMAGE_SIZE] * 2, top_k=top_k)
    logits, deltas = flatten_maps(objectness, box_deltas)
    assert proposals.boxes.shape == (2, top_k, 4)
    for clip in range(2):
        expected = loop_propose(config, logits[clip], deltas[clip], top_k)
        assert proposals.valid[clip].tolist() == [True] * len(expected) + [False] * (top_k - len(expected))
        torch.testing.assert_close(
            proposals.boxes[clip, : len(expected)], torch.tensor(expected), rtol=1e-4, atol=1e-4
        )
        assert not proposals.boxes[clip, len(expected) :].any()


def test_no_box_of_the_wanted_size_gives_padding_alone() -> None:
    config = ProposalConfig(anchor_sizes=(8.0,), anchor_ratios=(1.0,), min_size_px=1000.0)
    proposals = build(config).propose(
        torch.zeros(2, 1, *MAP_SIZE), torch.zeros(2, 4, *MAP_SIZE), [IMAGE_SIZE] * 2, top_k=5
    )
    assert not proposals.valid.any()
    assert not proposals.boxes.any()


def test_no_proposal_lies_in_the_padding_of_a_smaller_image() -> None:
    small = (20, 30)
    objectness, box_deltas = random_maps(clips=1)
    proposals = build().propose(objectness, box_deltas, [small], top_k=200)
    boxes = proposals.boxes[proposals.valid]
    assert len(boxes) > 5
    assert (boxes[:, 2] <= small[1]).all()
    assert (boxes[:, 3] <= small[0]).all()
    assert ((boxes[:, 2:] - boxes[:, :2]) > 0).all()


def test_wild_regressions_stay_finite_boxes_inside_the_image() -> None:
    objectness, box_deltas = random_maps(spread=1e4)
    boxes = build().propose(objectness, box_deltas, [IMAGE_SIZE] * 2, top_k=20).boxes
    assert boxes.isfinite().all()
    assert ((boxes >= 0) & (boxes <= 48)).all()


# ---------------------------------------------------------------------------------------------- losses


def targets(*boxes: list[float]) -> Targets:
    return Targets(torch.tensor(boxes).reshape(-1, 4), torch.ones(len(boxes), dtype=torch.int64))


def loop_loss(
    config: ProposalConfig,
    logits: Tensor,
    deltas: Tensor,
    image_size: tuple[int, int],
    truth: Targets,
    seed: int,
) -> tuple[float, float]:
    """Both losses of one frame from the definition; only the draw itself is shared with the code."""
    anchors = loop_anchors(config, MAP_SIZE)
    overlaps = box_geometry.iou(torch.tensor(anchors), truth.boxes).tolist()
    matches = []
    for row in overlaps:
        best = max(row, default=0.0)
        matches.append(
            row.index(best) if best >= config.positive_iou else -1 if best < config.negative_iou else -2
        )
    for index in range(len(truth.boxes)):
        best = max(row[index] for row in overlaps)
        for anchor, row in enumerate(overlaps):
            if row[index] > best - 1e-6 and best > 0:
                matches[anchor] = index
    for anchor, (x1, y1, x2, y2) in enumerate(anchors):
        if (x1 + x2) / 2 >= image_size[1] or (y1 + y2) / 2 >= image_size[0]:
            matches[anchor] = -2
    positive, negative = losses.sample(
        torch.tensor(matches),
        number=config.anchors_per_image,
        positive_fraction=config.positive_fraction,
        generator=torch.Generator().manual_seed(seed),
    )
    number = len(positive) + len(negative)
    entropy = sum(math.log(1 + math.exp(-logits[i])) for i in positive)
    entropy += sum(math.log(1 + math.exp(logits[i])) for i in negative)
    distance = 0.0
    for anchor in positive.tolist():
        x1, y1, x2, y2 = anchors[anchor]
        gx1, gy1, gx2, gy2 = truth.boxes[matches[anchor]].tolist()
        width, height = x2 - x1, y2 - y1
        expected = [
            ((gx1 + gx2) - (x1 + x2)) / 2 / width,
            ((gy1 + gy2) - (y1 + y2)) / 2 / height,
            math.log((gx2 - gx1) / width),
            math.log((gy2 - gy1) / height),
        ]
        for value, wanted in zip(deltas[anchor].tolist(), expected, strict=True):
            off, beta = abs(value - wanted), 1 / 9
            distance += off**2 / (2 * beta) if off < beta else off - beta / 2
    return float(entropy) / number, distance / number


def test_the_losses_equal_loops_with_and_without_ground_truth() -> None:
    objectness, box_deltas = random_maps(clips=3)
    truths = [
        targets([5.0, 6.0, 14.0, 13.0], [20.0, 4.0, 37.0, 30.0]),
        targets(),
        targets([2.0, 2.0, 9.0, 17.0]),
    ]
    sizes = [IMAGE_SIZE, IMAGE_SIZE, (24, 33)]
    generators = [torch.Generator().manual_seed(seed) for seed in (4, 5, 6)]
    found = build().loss(objectness, box_deltas, sizes, truths, list(generators))
    logits, deltas = flatten_maps(objectness, box_deltas)
    expected = [
        loop_loss(CONFIG, logits[i], deltas[i], sizes[i], truths[i], seed) for i, seed in enumerate((4, 5, 6))
    ]
    assert found["objectness"].item() == pytest.approx(sum(e[0] for e in expected) / 3, rel=1e-5)
    assert found["proposal_boxes"].item() == pytest.approx(sum(e[1] for e in expected) / 3, rel=1e-5)
    assert expected[0][1] > 0
    assert expected[1][1] == 0


def test_anchors_in_the_padding_never_enter_the_loss() -> None:
    objectness, box_deltas = random_maps(clips=1)
    objectness.requires_grad_()
    config = ProposalConfig(anchor_sizes=CONFIG.anchor_sizes, anchors_per_image=10_000)
    build(config).loss(objectness, box_deltas, [(16, 24)], [targets()], [None])["objectness"].backward()
    seen = objectness.grad[0].any(dim=0)  # (h, w)
    assert seen[:2, :3].all()
    assert seen.sum() == 6


def test_anchors_in_a_crowd_never_enter_the_loss() -> None:
    objectness, box_deltas = random_maps(clips=1)
    objectness.requires_grad_()
    config = ProposalConfig(anchor_sizes=(8.0,), anchor_ratios=(1.0,), anchors_per_image=10_000)
    crowded = targets()
    crowded.crowds = torch.tensor([[16.0, 8.0, 41.0, 24.0]])  # of the last column of cells only an eighth
    found = build(config).loss(objectness[:, :1], box_deltas[:, :4], [IMAGE_SIZE], [crowded], [None])
    found["objectness"].backward()
    left_out = torch.zeros(MAP_SIZE, dtype=torch.bool)
    left_out[1:3, 2:5] = True
    assert torch.equal(objectness.grad[0, 0] != 0, ~left_out)


def test_a_frame_that_is_all_crowd_has_losses_of_zero() -> None:
    objectness, box_deltas = random_maps(clips=1)
    objectness.requires_grad_()
    crowded = targets()
    crowded.crowds = torch.tensor([[-50.0, -50.0, 100.0, 100.0]])
    found = build().loss(objectness, box_deltas, [IMAGE_SIZE], [crowded], [None])
    assert {name: value.item() for name, value in found.items()} == {"objectness": 0, "proposal_boxes": 0}
    sum(found.values()).backward()
    assert objectness.grad is not None
    assert not objectness.grad.any()


def test_the_network_predicts_one_score_and_four_deltas_per_anchor() -> None:
    objectness, box_deltas = build()(torch.randn(2, CHANNELS, *MAP_SIZE))
    assert objectness.shape == (2, 6, *MAP_SIZE)
    assert box_deltas.shape == (2, 24, *MAP_SIZE)
    proposals = build().propose(objectness, box_deltas, [IMAGE_SIZE] * 2, top_k=CONFIG.current_top_k)
    assert isinstance(proposals, Proposals)
    assert not proposals.boxes.requires_grad
