"""Box geometry against loops, and as its own inverse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lstfe.boxes import (
    MAX_LOG_SCALE,
    area,
    centers_and_sizes,
    clip_to_image,
    covered_share,
    decode,
    encode,
    iou,
)

HEAD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
NO_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def random_boxes(count: int, seed: int = 0, *, extent: float = 100.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=random, dtype=torch.float64) * extent
    sizes = 1 + torch.rand(count, 2, generator=random, dtype=torch.float64) * extent / 2
    return torch.cat((corners, corners + sizes), dim=1)


def slow_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


@pytest.mark.parametrize(("num_first", "num_second"), [(0, 0), (0, 3), (3, 0)])
def test_iou_of_no_boxes_is_empty(num_first: int, num_second: int) -> None:
    assert iou(torch.empty(num_first, 4), torch.empty(num_second, 4)).shape == (num_first, num_second)


def test_iou_equals_a_loop_over_all_pairs() -> None:
    first, second = random_boxes(7, seed=1), random_boxes(9, seed=2)
    expected = torch.tensor(
        [[slow_iou(a, b) for b in second.tolist()] for a in first.tolist()], dtype=torch.float64
    )
    assert (expected > 0).any()
    assert (expected == 0).any()
    torch.testing.assert_close(iou(first, second), expected)


def test_a_box_covers_itself_and_only_touches_its_neighbour() -> None:
    boxes = torch.tensor([[2.0, 3.0, 12.0, 8.0], [12.0, 3.0, 20.0, 8.0]])
    torch.testing.assert_close(iou(boxes, boxes), torch.eye(2))


def test_iou_of_boxes_without_extent_is_zero_not_nan() -> None:
    points = torch.tensor([[5.0, 5.0, 5.0, 5.0], [7.0, 7.0, 6.0, 6.0]])
    assert torch.equal(iou(points, points), torch.zeros(2, 2))


def test_the_covered_share_is_of_the_box_whatever_the_regions_size() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0], [10.0, 0.0, 14.0, 2.0], [5.0, 5.0, 5.0, 9.0]])
    regions = torch.tensor([[1.0, 1.0, 100.0, 100.0], [0.0, 0.0, 8.0, 8.0]])
    assert covered_share(boxes, regions).tolist() == [[0.375, 1.0], [0.5, 0.0], [0.0, 0.0]]
    assert covered_share(boxes, regions[:0]).shape == (3, 0)


def test_area_is_width_times_height_and_never_negative() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 3.0], [4.0, 0.0, 0.0, 3.0], [4.0, 3.0, 0.0, 0.0]])
    assert area(boxes).tolist() == [12.0, 0.0, 0.0]


def test_centers_and_sizes_keep_leading_dimensions() -> None:
    parts = centers_and_sizes(torch.tensor([[[2.0, 4.0, 10.0, 8.0]]]))
    assert [part.tolist() for part in parts] == [[[6.0]], [[6.0]], [[8.0]], [[4.0]]]


@pytest.mark.parametrize("weights", [NO_WEIGHTS, HEAD_WEIGHTS])
def test_decode_is_the_inverse_of_encode(weights: tuple[float, float, float, float]) -> None:
    anchors, boxes = random_boxes(50, seed=3), random_boxes(50, seed=4)
    torch.testing.assert_close(decode(encode(boxes, anchors, weights), anchors, weights), boxes)


def test_encode_is_the_published_form() -> None:
    anchor = torch.tensor([[10.0, 10.0, 30.0, 20.0]])  # center (20, 15), 20 x 10
    box = torch.tensor([[20.0, 10.0, 60.0, 15.0]])  # center (40, 12.5), 40 x 5
    expected = [10 * 20 / 20, 10 * -2.5 / 10, 5 * math.log(2), 5 * math.log(0.5)]
    assert encode(box, anchor, HEAD_WEIGHTS)[0].tolist() == pytest.approx(expected)


def test_zero_deltas_give_the_anchors() -> None:
    anchors = random_boxes(5)
    torch.testing.assert_close(decode(torch.zeros(5, 4, dtype=torch.float64), anchors, HEAD_WEIGHTS), anchors)


def test_deltas_broadcast_over_labels() -> None:
    anchors, deltas = random_boxes(5), torch.randn(5, 3, 4, dtype=torch.float64)
    together = decode(deltas, anchors[:, None], HEAD_WEIGHTS)
    for label in range(3):
        torch.testing.assert_close(together[:, label], decode(deltas[:, label], anchors, HEAD_WEIGHTS))


def test_a_wild_regression_stays_finite() -> None:
    box = decode(torch.tensor([[0.0, 0.0, 1e4, 1e4]]), torch.tensor([[0.0, 0.0, 16.0, 16.0]]), NO_WEIGHTS)
    assert (box[:, 2:] - box[:, :2]).tolist() == [pytest.approx([1000.0, 1000.0], rel=1e-5)]
    assert math.exp(MAX_LOG_SCALE) == pytest.approx(62.5)


def test_clipping_moves_corners_into_the_image_of_height_and_width() -> None:
    boxes = torch.tensor([[-5.0, -6.0, 30.0, 40.0], [2.0, 3.0, 4.0, 5.0], [50.0, 60.0, 70.0, 80.0]])
    clipped = clip_to_image(boxes, (20, 25))
    assert clipped.tolist() == [[0, 0, 25, 20], [2, 3, 4, 5], [25, 20, 25, 20]]
    assert boxes[0, 0] == -5  # the given boxes are left alone
