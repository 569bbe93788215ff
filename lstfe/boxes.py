"""Box geometry in PyTorch: xyxy, continuous pixels, no +1.

Shapes: N, M boxes; leading dimensions are free where the docstring writes `...`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lstfe.transfer import constant

# exp(log(1000/16)): a box may grow at most 62.5 times in one regression, which keeps exp() finite.
MAX_LOG_SCALE = math.log(1000.0 / 16.0)


def area(boxes: Tensor) -> Tensor:
    """Return the area of each box in square pixels, 0 for a box without extent: (..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(min=0)


def centers_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x center, y center, width and height: (..., 4) -> four (...)."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of every pair: (N, 4), (M, 4) -> (N, M); 0 where both are empty."""
    shared = _intersection(first, second)
    union = area(first)[:, None] + area(second)[None, :] - shared
    return shared / union.clamp(min=1e-9)


def covered_share(boxes: Tensor, regions: Tensor) -> Tensor:
    """Return which share of each box lies in each region: (N, 4), (M, 4) -> (N, M); 0 for a box without extent."""
    return _intersection(boxes, regions) / area(boxes)[:, None].clamp(min=1e-9)


def _intersection(first: Tensor, second: Tensor) -> Tensor:
    """Return the area that every pair shares: (N, 4), (M, 4) -> (N, M)."""
    top_left = torch.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    return (bottom_right - top_left).clamp(min=0).prod(dim=-1)


def clip_to_image(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Move every corner into the image: (..., 4) -> (..., 4); `image_size` is (height, width)."""
    height, width = image_size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack(
        (x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)), dim=-1
    )


def encode(boxes: Tensor, anchors: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Return the box deltas that turn `anchors` into `boxes`: (..., 4), (..., 4) -> (..., 4).

    R-CNN's form: (dx / w, dy / h, log(w'/w), log(h'/h)), each times its weight.
    """
    x, y, width, height = centers_and_sizes(anchors)
    box_x, box_y, box_width, box_height = centers_and_sizes(boxes)
    deltas = (
        (box_x - x) / width,
        (box_y - y) / height,
        torch.log(box_width / width),
        torch.log(box_height / height),
    )
    return torch.stack([delta * weight for delta, weight in zip(deltas, weights, strict=True)], dim=-1)


def decode(box_deltas: Tensor, anchors: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Apply box deltas to anchors, the inverse of `encode`: (..., 4), (..., 4) -> (..., 4)."""
    x, y, width, height = centers_and_sizes(anchors)
    # One division by a tensor: CUDA divides by a plain number as it multiplies by its reciprocal, which rounds twice.
    dx, dy, log_width, log_height = (box_deltas / constant(weights, box_deltas)).unbind(-1)
    center_x, center_y = x + dx * width, y + dy * height
    half_width = width * log_width.clamp(max=MAX_LOG_SCALE).exp() / 2
    half_height = height * log_height.clamp(max=MAX_LOG_SCALE).exp() / 2
    return torch.stack(
        (center_x - half_width, center_y - half_height, center_x + half_width, center_y + half_height), dim=-1
    )
