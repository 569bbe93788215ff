"""Non-maximum suppression with a fixed output size: a PyTorch operator and what it becomes in ONNX.

torchvision's `nms` returns as many indices as survive, a size that depends on data; a mask has one size.
Shapes: C classes that do not suppress each other, N boxes each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnxscript import opset19
from torch import Tensor
from torchvision.ops import nms

# Its own types know ONNX's operators, but not the numbers and lists that they take for constants.
op: Any = opset19


@torch.library.custom_op("lstfe::suppress", mutates_args=())
def suppress(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_kept: int
) -> Tensor:
    """Say which boxes greedy suppression keeps: (C, N, 4), (C, N) -> (C, N) bool.

    Only boxes with a score above `score_threshold` take part; of each class the best `max_kept` stay at most.
    """
    keep = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    for of_class, (class_boxes, class_scores) in enumerate(zip(boxes, scores, strict=True)):
        taking_part = (class_scores > score_threshold).nonzero().flatten()
        kept = nms(class_boxes[taking_part], class_scores[taking_part], iou_threshold)[:max_kept]
        keep[of_class, taking_part[kept]] = True
    return keep


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_kept: int) -> Tensor:
    return scores.new_empty(scores.shape, dtype=torch.bool)


def suppress_in_onnx(
    boxes: Any, scores: Any, iou_threshold: float, score_threshold: float, max_kept: int
) -> Any:
    """`suppress` in standard ONNX: each class is one batch entry of NonMaxSuppression."""
    selected = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Constant(value_int=max_kept),
        op.Constant(value_float=float32_threshold(iou_threshold)),
        op.Constant(value_float=score_threshold),
    )  # (kept, 3): class, 0, box
    places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_int=1), op.Slice(op.Shape(selected), [0], [1]))
    nothing = op.Expand(op.Constant(value_int=0), op.Shape(scores))
    return op.Cast(op.ScatterND(nothing, places, ones), to=9)  # bool


def float32_threshold(threshold: float) -> float:
    """Return the largest float32 that is not above a threshold.

    torchvision's `nms` compares its float32 IoU with a float64; what has only float32 to compare with decides alike,
    also at the threshold itself, once it is given this number: 0.3 becomes 0.29999998, where rounding gives 0.30000001.
    """
    rounded = np.float32(threshold)
    # As Python's floats: NumPy would compare with the threshold rounded, too.
    return float(rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf)))
