from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from deploy.suppression import float32_threshold, suppress, suppress_in_onnx


def suppress_slowly(boxes: Tensor, scores: Tensor, iou: float, least: float, max_kept: int) -> Tensor:
    """Greedy suppression as the textbook says it, box by box."""
    keep = torch.zeros(scores.shape, dtype=torch.bool)
    for c in range(len(scores)):
        kept: list[int] = []
        for i in sorted(range(scores.shape[1]), key=lambda i: -float(scores[c, i])):
            if scores[c, i] <= least or len(kept) == max_kept:
                continue
            if all(overlap(boxes[c, i].tolist(), boxes[c, j].tolist()) <= iou for j in kept):
                kept.append(i)
        keep[c, kept] = True
    return keep


def overlap(one: list[float], other: list[float]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def random_boxes(classes: int, number: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand((classes, number, 2), generator=generator) * 40
    sides = 5 + torch.rand((classes, number, 2), generator=generator) * 20
    return torch.cat((corners, corners + sides), dim=2), torch.rand((classes, number), generator=generator)


class Suppression(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        kept: Tensor = suppress(boxes, scores, 0.4, 0.3, 6)
        return kept


@pytest.fixture(scope="module")
def onnx_suppression() -> onnxruntime.InferenceSession:
    with torch.no_grad():
        program = torch.onnx.export(
            Suppression().eval(),
            random_boxes(2, 30, 0),
            input_names=["boxes", "scores"],
            opset_version=20,
            dynamo=True,
            custom_translation_table={torch.ops.lstfe.suppress.default: suppress_in_onnx},
            verbose=False,
        )
    assert program is not None
    onnx.checker.check_model(program.model_proto)
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString())


def test_no_box_above_the_threshold_keeps_none(onnx_suppression: onnxruntime.InferenceSession) -> None:
    boxes, scores = random_boxes(2, 30, 0)
    assert not suppress(boxes, scores * 0, 0.4, 0.3, 6).any()
    [found] = onnx_suppression.run(None, {"boxes": boxes.numpy(), "scores": scores.numpy() * 0})
    assert not found.any()


def test_torch_and_onnx_keep_what_the_slow_reference_keeps(
    onnx_suppression: onnxruntime.InferenceSession,
) -> None:
    for seed in range(20):
        boxes, scores = random_boxes(2, 30, seed)
        expected = suppress_slowly(boxes, scores, 0.4, 0.3, 6)
        assert torch.equal(suppress(boxes, scores, 0.4, 0.3, 6), expected)
        [found] = onnx_suppression.run(None, {"boxes": boxes.numpy(), "scores": scores.numpy()})
        np.testing.assert_array_equal(found, expected)


def test_classes_do_not_suppress_each_other() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0]]]).expand(2, 1, 4)
    assert suppress(boxes, torch.tensor([[0.9], [0.8]]), 0.5, 0.0, 5).all()


def test_an_overlap_of_the_threshold_itself_suppresses_as_in_pytorch(
    onnx_suppression: onnxruntime.InferenceSession,
) -> None:
    # An IoU of 2/5: as a float32 it is above the threshold of 0.4, and so is the threshold's own float32.
    boxes, scores = torch.zeros(2, 30, 4), torch.zeros(2, 30)
    boxes[0, :2] = torch.tensor([[0.0, 0.0, 1.0, 5.0], [0.0, 3.0, 1.0, 5.0]])
    scores[0, :2] = torch.tensor([0.9, 0.8])
    expected = suppress(boxes, scores, 0.4, 0.3, 6)
    (found,) = onnx_suppression.run(None, {"boxes": boxes.numpy(), "scores": scores.numpy()})
    assert found.tolist() == expected.tolist()
    assert int(expected.sum()) == 1


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.25, 0.3, 0.5, 0.6, 0.7, 0.9, 1.0])
def test_a_float32_is_above_the_threshold_if_it_is_above_its_float32(threshold: float) -> None:
    near = torch.tensor(threshold, dtype=torch.float32)
    for towards in (torch.tensor(-1.0), near, torch.tensor(2.0)):
        value = near.nextafter(towards).item()
        assert (value > threshold) == (value > float32_threshold(threshold))
    assert torch.tensor(float32_threshold(threshold)).item() == float32_threshold(threshold)
