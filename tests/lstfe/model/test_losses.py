"""Matching, sampling and losses against loops over boxes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lstfe.boxes import iou
from lstfe.model import losses
from lstfe.types import Targets


def random_boxes(number: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 2, generator=generator) * 40
    return torch.cat((corners, corners + 5 + 25 * torch.rand(number, 2, generator=generator)), dim=1)


def truth(boxes: Tensor, crowds: Tensor | None = None) -> Targets:
    return Targets(boxes, torch.ones(len(boxes), dtype=torch.int64), crowds)


def loop_match(
    boxes: Tensor, truths: Tensor, positive: float, negative: float, *, keep_best: bool
) -> list[int]:
    overlaps = iou(boxes, truths).tolist()
    matches = []
    for row in overlaps:
        best = max(range(len(row)), key=row.__getitem__)
        matches.append(best if row[best] >= positive else -1 if row[best] < negative else -2)
    if keep_best:
        for truth in range(len(truths)):
            best = max(range(len(boxes)), key=lambda box: overlaps[box][truth])
            if overlaps[best][truth] > 0:
                matches[best] = truth
    return matches


def test_without_ground_truth_every_box_is_background() -> None:
    boxes = random_boxes(5, 0)
    matches = losses.match(
        boxes, truth(torch.zeros(0, 4)), positive_iou=0.7, negative_iou=0.3, keep_best=True
    )
    assert matches.tolist() == [losses.BACKGROUND] * 5
    nothing = losses.match(
        torch.zeros(0, 4), truth(random_boxes(2, 1)), positive_iou=0.5, negative_iou=0.5, keep_best=False
    )
    assert nothing.shape == (0,)


@pytest.mark.parametrize("keep_best", [True, False])
@pytest.mark.parametrize(("positive", "negative"), [(0.5, 0.5), (0.6, 0.2), (1.0, 0.3)])
def test_matching_equals_a_loop_over_all_pairs(positive: float, negative: float, keep_best: bool) -> None:
    boxes, truths = random_boxes(60, 2), random_boxes(4, 3)
    boxes = torch.cat((boxes, truths[:1]))  # one perfect match
    matches = losses.match(
        boxes, truth(truths), positive_iou=positive, negative_iou=negative, keep_best=keep_best
    )
    assert matches.tolist() == loop_match(boxes, truths, positive, negative, keep_best=keep_best)


def test_a_ground_truth_that_nothing_overlaps_takes_no_box() -> None:
    far = torch.tensor([[500.0, 500.0, 520.0, 520.0]])
    matches = losses.match(random_boxes(5, 0), truth(far), positive_iou=0.7, negative_iou=0.3, keep_best=True)
    assert matches.tolist() == [losses.BACKGROUND] * 5


@pytest.mark.parametrize("num_truths", [0, 4])
@pytest.mark.parametrize("num_crowds", [0, 3])
def test_what_lies_mostly_in_a_crowd_is_no_background_and_all_else_stays(
    num_truths: int, num_crowds: int
) -> None:
    boxes, truths, crowds = random_boxes(60, 2), random_boxes(num_truths, 3), random_boxes(num_crowds, 5)
    found, expected = (
        losses.match(boxes, truth(truths, regions), positive_iou=0.5, negative_iou=0.3, keep_best=True)
        for regions in (crowds, None)
    )
    shares = [
        max((share_inside(box, crowd) for crowd in crowds.tolist()), default=0) for box in boxes.tolist()
    ]
    for match, share, before in zip(found.tolist(), shares, expected.tolist(), strict=True):
        assert match == (losses.IGNORED if before == losses.BACKGROUND and share > 0.5 else before)
    assert (found != expected).any() == (num_crowds > 0)
    assert (expected >= 0).any() == (num_truths > 0)


def test_an_object_in_a_crowd_is_still_an_object() -> None:
    box = torch.tensor([[10.0, 10.0, 20.0, 20.0]])
    crowd = torch.tensor([[0.0, 0.0, 40.0, 40.0]])
    matches = losses.match(box, truth(box, crowd), positive_iou=0.7, negative_iou=0.3, keep_best=False)
    assert matches.tolist() == [0]


def test_a_box_of_which_half_or_less_lies_in_a_crowd_is_background() -> None:
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 20.0, 10.0], [0.0, 0.0, 19.0, 10.0]])
    crowd = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    none = torch.zeros(0, 4)
    matches = losses.match(boxes, truth(none, crowd), positive_iou=0.5, negative_iou=0.5, keep_best=False)
    assert matches.tolist() == [losses.BACKGROUND, losses.BACKGROUND, losses.IGNORED]


def share_inside(box: list[float], region: list[float]) -> float:
    width = max(0.0, min(box[2], region[2]) - max(box[0], region[0]))
    height = max(0.0, min(box[3], region[3]) - max(box[1], region[1]))
    return width * height / ((box[2] - box[0]) * (box[3] - box[1]))


@pytest.mark.parametrize(
    ("num_positive", "num_negative", "expected"),
    [(0, 0, (0, 0)), (0, 50, (0, 16)), (50, 0, (4, 0)), (2, 50, (2, 14)), (50, 50, (4, 12)), (3, 5, (3, 5))],
)
def test_a_quarter_of_sixteen_samples_is_positive_at_most(
    num_positive: int, num_negative: int, expected: tuple[int, int]
) -> None:
    matches = torch.tensor([7] * num_positive + [losses.BACKGROUND] * num_negative + [losses.IGNORED] * 9)
    positive, negative = losses.sample(matches, number=16, positive_fraction=0.25, generator=None)
    assert (len(positive), len(negative)) == expected
    assert (matches[positive] >= 0).all()
    assert (matches[negative] == losses.BACKGROUND).all()
    assert len(set(positive.tolist() + negative.tolist())) == sum(expected)


def test_the_same_seed_draws_the_same_boxes_and_another_one_others() -> None:
    matches = torch.randint(-1, 1, (200,), generator=torch.Generator().manual_seed(0))
    draws = [
        torch.cat(
            losses.sample(
                matches, number=20, positive_fraction=0.5, generator=torch.Generator().manual_seed(seed)
            )
        ).tolist()
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_losses_of_nothing_are_zero_and_can_be_differentiated() -> None:
    logits = torch.randn(4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    scores, deltas = torch.zeros(0, 3, requires_grad=True), torch.zeros(0, 4, requires_grad=True)
    total = (
        losses.objectness_loss(logits, none, none)
        + losses.classification_loss(scores, none)
        + losses.regression_loss(deltas, torch.zeros(0, 4), num_sampled=0, beta=1.0)
    )
    total.backward()
    assert total.item() == 0
    assert not logits.grad.any()


def test_objectness_equals_a_loop_over_the_sampled_anchors() -> None:
    logits = torch.linspace(-3, 3, 10)
    positive, negative = torch.tensor([8, 1]), torch.tensor([0, 5, 9])
    expected = [math.log(1 + math.exp(-logits[i])) for i in positive]
    expected += [math.log(1 + math.exp(logits[i])) for i in negative]
    loss = losses.objectness_loss(logits, positive, negative)
    assert loss.item() == pytest.approx(sum(expected) / 5, rel=1e-5)


def test_classification_equals_a_loop_over_the_proposals() -> None:
    logits, labels = (
        torch.randn(6, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 2, 1] * 2),
    )
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        expected += math.log(sum(math.exp(value) for value in row)) - row[label]
    assert losses.classification_loss(logits, labels).item() == pytest.approx(expected / 6, rel=1e-5)


@pytest.mark.parametrize("beta", [1.0, 1 / 9])
def test_regression_equals_a_loop_over_the_positives_and_divides_by_all_samples(beta: float) -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, truth = (torch.randn(5, 4, generator=generator) for _ in range(2))
    expected = 0.0
    for row, column in itertools.product(range(5), range(4)):
        distance = abs((predicted - truth)[row, column].item())
        expected += distance**2 / (2 * beta) if distance < beta else distance - beta / 2
    loss = losses.regression_loss(predicted, truth, num_sampled=20, beta=beta)
    assert loss.item() == pytest.approx(expected / 20, rel=1e-5)
