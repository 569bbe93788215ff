"""The head's targets, losses and suppression against loops over proposals and classes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lstfe.boxes import iou
from lstfe.config import HeadConfig
from lstfe.model import losses
from lstfe.model.detection_head import DetectionHead
from lstfe.types import Detections, Proposals, Targets

EMBEDDING, NUM_CLASSES = 8, 4
CONFIG = HeadConfig(rois_per_image=12, detections_per_frame=50)
IMAGE_SIZE, ORIGINAL_SIZE = (60, 90), (120, 270)


def build(config: HeadConfig = CONFIG) -> DetectionHead:
    torch.manual_seed(0)
    return DetectionHead(EMBEDDING, NUM_CLASSES, config)


def random_boxes(number: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 2, generator=generator) * torch.tensor([70.0, 40.0])
    return torch.cat((corners, corners + 6 + 20 * torch.rand(number, 2, generator=generator)), dim=1)


def random_proposals(clips: int = 2, number: int = 20, num_valid: int = 17) -> Proposals:
    boxes = torch.stack([random_boxes(number, seed) for seed in range(clips)])
    boxes[:, num_valid:] = 0
    valid = torch.arange(number).expand(clips, number) < num_valid
    return Proposals(boxes, valid)


def random_output(clips: int, number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(clips, number, NUM_CLASSES, generator=generator) * 2
    return logits, torch.randn(clips, number, 4 * NUM_CLASSES, generator=generator)


def no_targets() -> Targets:
    return Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def seeds(*values: int) -> list[torch.Generator | None]:
    return [torch.Generator().manual_seed(value) for value in values]


# -------------------------------------------------------------------------------------------- sampling


def test_without_proposals_and_ground_truth_nothing_is_drawn_and_the_loss_is_zero() -> None:
    head = build()
    empty = Proposals(torch.zeros(1, 20, 4), torch.zeros(1, 20, dtype=torch.bool))
    sampled, matches = head.sample(empty, [no_targets()], seeds(0))
    assert not sampled.valid.any()
    logits, deltas = head(torch.randn(1, 12, EMBEDDING))
    found = head.loss(logits, deltas, sampled, matches, [no_targets()])
    assert {name: value.item() for name, value in found.items()} == {"classification": 0, "box_regression": 0}
    sum(found.values()).backward()  # a frame with nothing in it must not break the backward pass
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_a_frame_without_ground_truth_gives_background_only() -> None:
    sampled, matches = build().sample(random_proposals(1), [no_targets()], seeds(0))
    assert matches[0].tolist() == [losses.BACKGROUND] * 12
    assert sampled.valid.all()


def test_samples_are_proposals_or_ground_truth_matched_at_half_overlap() -> None:
    proposals, truth = random_proposals(), [Targets(random_boxes(2, 9), torch.tensor([1, 3])), no_targets()]
    sampled, matches = build().sample(proposals, truth, seeds(0, 1))
    assert sampled.boxes.shape == (2, 12, 4)
    for clip in range(2):
        pool = truth[clip].boxes.tolist() + proposals.boxes[clip, :17].tolist()
        number = int(sampled.valid[clip].sum())
        assert number == len(matches[clip]) == 12
        for box, match in zip(sampled.boxes[clip].tolist(), matches[clip].tolist(), strict=True):
            assert box in pool
            overlaps = iou(torch.tensor([box]), truth[clip].boxes)[0].tolist()
            expected = overlaps.index(max(overlaps)) if max(overlaps, default=0.0) >= 0.5 else -1
            assert match == expected
    assert 1 <= int((matches[0] >= 0).sum()) <= 3  # the ground truths themselves are there; a quarter at most


def test_proposals_in_a_crowd_are_not_drawn_but_for_those_that_stand_for_an_object() -> None:
    proposals, (truth,) = random_proposals(1), [Targets(random_boxes(2, 9), torch.tensor([1, 3]))]
    everywhere = torch.tensor([[0.0, 0.0, 200.0, 200.0]])
    head = build(HeadConfig(rois_per_image=80))
    _, (without,) = head.sample(proposals, [truth], seeds(0))
    assert losses.BACKGROUND in without.tolist()
    truth.crowds = everywhere
    sampled, (matches,) = head.sample(proposals, [truth], seeds(0))
    assert matches.tolist() == without[without >= 0].tolist() != []
    assert sampled.valid.sum() == len(matches)
    alone = replace(no_targets(), crowds=everywhere)
    sampled, (matches,) = head.sample(proposals, [alone], seeds(0))
    assert len(matches) == sampled.valid.sum() == 0


def test_the_losses_equal_loops_over_the_sampled_proposals() -> None:
    head = build()
    truth = [Targets(random_boxes(2, 9), torch.tensor([1, 3])), no_targets()]
    sampled, matches = head.sample(random_proposals(), truth, seeds(0, 1))
    logits, deltas = random_output(2, 12)
    found = head.loss(logits, deltas, sampled, matches, truth)
    expected = [loop_losses(logits[i], deltas[i], sampled.boxes[i], matches[i], truth[i]) for i in range(2)]
    assert found["classification"].item() == pytest.approx(sum(e[0] for e in expected) / 2, rel=1e-5)
    assert found["box_regression"].item() == pytest.approx(sum(e[1] for e in expected) / 2, rel=1e-5)
    assert expected[0][1] > 0


def loop_losses(
    logits: Tensor, deltas: Tensor, boxes: Tensor, matches: Tensor, truth: Targets
) -> tuple[float, float]:
    entropy = distance = 0.0
    for row, match in enumerate(matches.tolist()):
        label = int(truth.labels[match]) if match >= 0 else 0
        values = logits[row].tolist()
        entropy += math.log(sum(math.exp(value) for value in values)) - values[label]
        if match < 0:
            continue
        x1, y1, x2, y2 = boxes[row].tolist()
        gx1, gy1, gx2, gy2 = truth.boxes[match].tolist()
        width, height = x2 - x1, y2 - y1
        wanted = [
            10 * ((gx1 + gx2) - (x1 + x2)) / 2 / width,
            10 * ((gy1 + gy2) - (y1 + y2)) / 2 / height,
            5 * math.log((gx2 - gx1) / width),
            5 * math.log((gy2 - gy1) / height),
        ]
        for value, number in zip(deltas[row, 4 * label : 4 * label + 4].tolist(), wanted, strict=True):
            off = abs(value - number)
            distance += off**2 / 2 if off < 1 else off - 0.5
    return entropy / len(matches), distance / len(matches)


# ------------------------------------------------------------------------------------------ detections


def loop_detections(
    config: HeadConfig, logits: Tensor, deltas: Tensor, proposals: Proposals, clip: int
) -> list[tuple[float, int, list[float]]]:
    """Decode, threshold and suppress class by class: (score, label, box in original pixels), best first."""
    found = []
    for row, label in itertools.product(range(logits.shape[1]), range(1, NUM_CLASSES)):
        if not proposals.valid[clip, row]:
            continue
        exponents = [math.exp(value) for value in logits[clip, row].tolist()]
        score = exponents[label] / sum(exponents)
        x1, y1, x2, y2 = proposals.boxes[clip, row].tolist()
        dx, dy, log_width, log_height = deltas[clip, row, 4 * label : 4 * label + 4].tolist()
        x, y = (x1 + x2) / 2 + dx / 10 * (x2 - x1), (y1 + y2) / 2 + dy / 10 * (y2 - y1)
        half_width = (x2 - x1) * math.exp(log_width / 5) / 2
        half_height = (y2 - y1) * math.exp(log_height / 5) / 2
        corners = [x - half_width, y - half_height, x + half_width, y + half_height]
        box = [min(max(corner, 0), IMAGE_SIZE[1 - i % 2]) for i, corner in enumerate(corners)]
        if score > config.score_threshold and box[2] > box[0] and box[3] > box[1]:
            found.append((score, label, box))
    kept: list[tuple[float, int, list[float]]] = []
    for score, label, box in sorted(found, reverse=True):
        rivals = torch.tensor([other for _, other_label, other in kept if other_label == label])
        if (iou(torch.tensor([box]), rivals.reshape(-1, 4)) <= config.nms_iou).all():
            kept.append((score, label, box))
    scale = [ORIGINAL_SIZE[1] / IMAGE_SIZE[1], ORIGINAL_SIZE[0] / IMAGE_SIZE[0]] * 2
    scaled = [(s, label, [c * f for c, f in zip(box, scale, strict=True)]) for s, label, box in kept]
    return scaled[: config.detections_per_frame]


@torch.no_grad()
@pytest.mark.parametrize(
    "config",
    [
        HeadConfig(),
        HeadConfig(score_threshold=0.3),
        HeadConfig(nms_iou=0.1, detections_per_frame=5),
        HeadConfig(score_threshold=0.99999),
    ],
    ids=["default", "threshold", "few", "none"],
)
def test_detections_equal_suppression_in_loops(config: HeadConfig) -> None:
    proposals, (logits, deltas) = random_proposals(), random_output(2, 20)
    found = build(config).postprocess(logits, deltas, proposals, [IMAGE_SIZE] * 2, [ORIGINAL_SIZE] * 2)
    for clip in range(2):
        expected = loop_detections(config, logits, deltas, proposals, clip)
        assert found[clip].labels.tolist() == [label for _, label, _ in expected]
        np.testing.assert_allclose(found[clip].scores, [score for score, _, _ in expected], rtol=1e-5)
        wanted = np.array([box for _, _, box in expected]).reshape(-1, 4)
        np.testing.assert_allclose(found[clip].boxes, wanted, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_padding_alone_gives_no_detection_in_numpy_form() -> None:
    logits, deltas = random_output(1, 20)
    proposals = Proposals(torch.zeros(1, 20, 4), torch.zeros(1, 20, dtype=torch.bool))
    (found,) = build().postprocess(logits, deltas, proposals, [IMAGE_SIZE], [ORIGINAL_SIZE])
    assert isinstance(found, Detections)
    assert len(found) == 0
    assert (found.boxes.shape, found.boxes.dtype) == ((0, 4), np.float32)
    assert (found.scores.dtype, found.labels.dtype) == (np.float32, np.int64)


@torch.no_grad()
def test_diverged_logits_give_no_detection_instead_of_a_crash() -> None:
    logits, deltas = random_output(1, 20)
    logits[:] = math.nan
    (found,) = build().postprocess(logits, deltas, random_proposals(1), [IMAGE_SIZE], [ORIGINAL_SIZE])
    assert len(found) == 0
