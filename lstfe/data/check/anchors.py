"""Do the configured anchors fit the objects? Sizes and the best overlap, at the size the network sees.

Shapes: N boxes, A anchors a cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lstfe.config import ModelConfig, ProposalConfig
from lstfe.data.check.findings import Finding
from lstfe.data.check.tables import SplitTable
from lstfe.data.columns import Doubles
from lstfe.data.object_sizes import size_histogram
from lstfe.image_size import model_input_size

IOU_THRESHOLDS = (0.3, 0.5, 0.7)
SIZE_EDGES_PX = (0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512)
"""Edges of the histogram: square root of a box's area, pixels; the last bin is open."""
NEEDED_SHARE = 0.5
"""Share of boxes that some anchor should reach at `NEEDED_IOU`; below it a note is due."""
NEEDED_IOU = 0.5


def measure_boxes(tables: Sequence[SplitTable], model: ModelConfig) -> dict[str, Any]:
    """Return sizes and anchor reach of all boxes, as the JSON report has them."""
    sizes_px, at_input, overlaps = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    num_unknown = 0
    for table in tables:
        sizes_px.append(np.sqrt(table.bboxes[table.with_area, 2:].prod(axis=1)))
        for image_size, bboxes in _by_image_size(table):
            if min(image_size) <= 0:
                num_unknown += len(bboxes)
                continue
            corners, input_size = _at_input(bboxes, image_size, model)
            at_input.append(np.sqrt((corners[:, 2:] - corners[:, :2]).prod(axis=1)))
            overlaps.append(best_overlaps(corners, input_size, model))
    columns = np.concatenate(sizes_px), np.concatenate(at_input), np.concatenate(overlaps)
    return _describe(*columns, num_unknown, model.proposals)


def _describe(
    sizes_px: Doubles, at_input: Doubles, overlaps: Doubles, num_unknown: int, config: ProposalConfig
) -> dict[str, Any]:
    return {
        "boxes": len(sizes_px),
        "boxes_of_unknown_frame_size": num_unknown,
        "mean_size_px": round(float(sizes_px.mean()), 2) if len(sizes_px) else None,
        "by_size_px": size_histogram(sizes_px, SIZE_EDGES_PX),
        "by_size_at_input_px": size_histogram(at_input, SIZE_EDGES_PX),
        "anchor_sizes": list(config.anchor_sizes),
        "anchor_ratios": list(config.anchor_ratios),
        "reached": {
            str(iou): round(float((overlaps >= iou).mean()), 4) if len(overlaps) else None
            for iou in IOU_THRESHOLDS
        },
    }


def check_anchors(measured: dict[str, Any]) -> list[Finding]:
    """Return a note where too few boxes are reached by an anchor."""
    share = measured["reached"][str(NEEDED_IOU)]
    if share is None or share >= NEEDED_SHARE:
        return []
    return [
        Finding(
            "anchors_miss",
            f"anchors of {measured['anchor_sizes']} px reach {share:.1%} of the boxes at IoU {NEEDED_IOU}, "
            f"expected at least {NEEDED_SHARE:.0%}: set proposals.anchor_sizes by the histogram",
        )
    ]


def best_overlaps(corners: Doubles, input_size: tuple[int, int], model: ModelConfig) -> Doubles:
    """Return the IoU of each box (N, 4) xyxy with its best anchor, (N,); all in pixels of the network's image.

    For one shape the overlap grows in x and in y as centers come nearer, so the nearest cell is the best.
    """
    stride = model.backbone.feature_stride
    # As the proposal network trains: anchors with their center in the padding take no part.
    last = (np.ceil(np.array(input_size[::-1]) / stride - 0.5) - 1).clip(0)
    centers = (corners[:, :2] + corners[:, 2:]) / 2
    nearest = np.clip(np.floor(centers / stride), 0, last)
    sides = corners[:, 2:] - corners[:, :2]
    best = np.zeros(len(corners))
    for shape in anchor_shapes(model.proposals):
        middle = (nearest + 0.5) * stride
        shared = np.minimum(corners[:, 2:], middle + shape / 2) - np.maximum(
            corners[:, :2], middle - shape / 2
        )
        intersection = shared.clip(0).prod(axis=1)
        union = sides.prod(axis=1) + shape.prod() - intersection
        best = np.maximum(best, intersection / union)
    return best


def anchor_shapes(config: ProposalConfig) -> Doubles:
    """Return (width, height) of the anchors of one cell, as the proposal network makes them: (A, 2) pixels."""
    sizes, roots = np.array(config.anchor_sizes)[:, None], np.sqrt(config.anchor_ratios)[None]
    return np.stack(((sizes / roots).ravel(), (sizes * roots).ravel()), axis=1)


def _by_image_size(table: SplitTable) -> Iterator[tuple[tuple[int, int], Doubles]]:
    """Yield each (height, width) of the videos with the boxes in it."""
    sizes = table.image_sizes[table.object_video[table.with_area]]
    for height, width in np.unique(sizes, axis=0).tolist():
        yield (height, width), table.bboxes[table.with_area][(sizes == (height, width)).all(axis=1)]


def _at_input(
    bboxes: Doubles, image_size: tuple[int, int], model: ModelConfig
) -> tuple[Doubles, tuple[int, int]]:
    """Return what is inside the frame as corners (N, 4) in the network's image, and its (height, width)."""
    input_size = model_input_size(image_size, model)
    limits = np.tile(image_size[::-1], 2)
    corners = np.column_stack((bboxes[:, :2], bboxes[:, :2] + bboxes[:, 2:])).clip(0, limits)
    corners = corners[(corners[:, 2:] > corners[:, :2]).all(axis=1)]
    return corners * (np.tile(input_size[::-1], 2) / limits), input_size
