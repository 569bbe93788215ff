"""Which detections meet which ground truths: worked out once, and shared by all protocols.

Shapes: G ground truths and D detections over all frames, P pairs of a detection and a ground truth that overlap.
Only what has the same label and lies in the same frame can meet; one label in one frame is a *cell* here. Boxes
are xywh float64 pixels, because the protocols define IoU and area on these four numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_PAIRS_AT_ONCE = 2_000_000  # bounds the memory that crowded frames take


@dataclass(frozen=True, slots=True)
class GroundTruths:
    """Ground truths of many frames, one row each."""

    frames: Ints
    """(G,) place of the frame in the list of scored frames."""
    labels: Ints
    """(G,) >= 1."""
    boxes: Floats
    """(G, 4) xywh."""
    areas: Floats
    """(G,) square pixels, as annotated."""
    crowd: Flags
    """(G,) may be matched any number of times, and never counts."""
    motion: Floats | None = None
    """(G,) motion IoU (motion.py), NaN where it is unknown; None where the annotations name no tracks."""
    corner_pixels_inside: bool = False
    """Widths and heights have 1 px already that protocols add to x2 - x1 and y2 - y1."""

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, rows: Ints) -> GroundTruths:
        """Return some of the rows."""
        motion = None if self.motion is None else self.motion[rows]
        return GroundTruths(
            self.frames[rows],
            self.labels[rows],
            self.boxes[rows],
            self.areas[rows],
            self.crowd[rows],
            motion,
            self.corner_pixels_inside,
        )


@dataclass(frozen=True, slots=True)
class ScoredBoxes:
    """Detections of many frames, one row each."""

    frames: Ints
    """(D,) place of the frame in the list of scored frames."""
    labels: Ints
    """(D,) >= 1."""
    boxes: Floats
    """(D, 4) xywh."""
    scores: Floats
    """(D,)."""

    def __len__(self) -> int:
        return len(self.frames)

    def select(self, rows: Ints) -> ScoredBoxes:
        """Return some of the rows."""
        return ScoredBoxes(self.frames[rows], self.labels[rows], self.boxes[rows], self.scores[rows])


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs that overlap: cell by cell, in it detection by detection, best score first."""

    places: Ints
    """(P,) place of the detection in `Encounters.order`."""
    rows: Ints
    """(P,) row of the ground truth; ascending within a detection."""
    ious: Floats
    """(P,) > 0."""

    def __len__(self) -> int:
        return len(self.places)

    def select(self, chosen: Flags | Ints) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.places[chosen], self.rows[chosen], self.ious[chosen])


class Encounters:
    """Detections in the order of their scores, cells, and the pairs that overlap."""

    def __init__(self, truths: GroundTruths, detections: ScoredBoxes, *, by_label: bool) -> None:
        """`by_label` keeps labels apart; without it they are not looked at."""
        self.truths = truths
        self.detections = detections
        num_frames = 1 + max(truths.frames.max(initial=0), detections.frames.max(initial=0))
        self.truth_cells = truths.frames + (num_frames * truths.labels if by_label else 0)
        """(G,) number of each ground truth's cell."""
        cells = detections.frames + (num_frames * detections.labels if by_label else 0)
        by_frame = stable_argsort(detections.frames)
        order = by_frame[np.argsort(-detections.scores[by_frame], kind="stable")]
        if by_label:
            order = order[stable_argsort(detections.labels[order])]
        self._truths_by_cell = stable_argsort(self.truth_cells)
        self._settle(order, cells)

    def _settle(self, order: Ints, cells: Ints) -> None:
        self._limited: dict[int, Encounters] = {}
        self._pairs: dict[tuple[float, bool], Pairs] = {}
        self.order = order
        """(D,) rows of the detections: by label, score descending, ties by frame, then by row."""
        self.cells = cells[order]
        """(D,) number of each one's cell."""
        self.scores, self.frames = self.detections.scores[order], self.detections.frames[order]
        self._across_labels: Ints | None = None
        self._by_cell = stable_argsort(self.cells)
        starts = run_starts(self.cells[self._by_cell])
        self._cell_starts, self._cell_sizes = starts, np.diff(starts, append=len(order))
        self.rank = np.empty(len(order), np.int64)
        """(D,) place of each within its cell, 0 = best."""
        self.rank[self._by_cell] = np.arange(len(order)) - np.repeat(starts, self._cell_sizes)
        met, own = self.truth_cells[self._truths_by_cell], self.cells[self._by_cell[starts]]
        self._firsts = np.searchsorted(met, own, side="left")
        self._lasts = np.searchsorted(met, own, side="right")

    def limited(self, max_detections: int | None) -> Encounters:
        """Return the encounters of the best `max_detections` of each cell; None = all."""
        if max_detections is None or self._cell_sizes.max(initial=0) <= max_detections:
            return self
        if max_detections not in self._limited:
            limited = copy(self)
            cells = np.empty(len(self.detections), np.int64)
            cells[self.order] = self.cells
            limited._settle(self.order[self.rank < max_detections], cells)
            self._limited[max_detections] = limited
        return self._limited[max_detections]

    def cell_sums(self, values: Flags) -> Ints:
        """Return how many ground truths of each cell with detections have the value true: (G,) -> (cells,)."""
        up_to = np.append(0, np.cumsum(values[self._truths_by_cell]))
        return np.asarray(up_to[self._lasts] - up_to[self._firsts])

    def spread(self, values: Floats) -> Floats:
        """Return for each detection the value of its cell: (cells,) -> (D,)."""
        spread = np.empty(len(self.order))
        spread[self._by_cell] = np.repeat(values, self._cell_sizes)
        return spread

    def across_labels(self) -> Ints:
        """Return the places in `order`, best score first whatever the label: (D,)."""
        if self._across_labels is None:
            self._across_labels = np.argsort(-self.scores, kind="stable")
        return self._across_labels

    def pairs(self, *, grow_px: float = 0.0, crowd_by_detection: bool = False) -> Pairs:
        """Return the pairs that overlap.

        `grow_px` is added to all widths and heights, less the 1 px that the data may have added. With
        `crowd_by_detection` the overlap with a crowd is the share of the detection that lies inside it.
        """
        if self.truths.corner_pixels_inside:
            grow_px = max(grow_px - 1.0, 0.0)
        key = (grow_px, crowd_by_detection and bool(self.truths.crowd.any()))
        if key not in self._pairs:
            self._pairs[key] = self._overlapping(*key)
        return self._pairs[key]

    def _overlapping(self, grow_px: float, crowd_by_detection: bool) -> Pairs:
        meeting = self._lasts > self._firsts
        firsts, numbers = self._firsts[meeting], (self._lasts - self._firsts)[meeting]
        sizes = self._cell_sizes[meeting]
        places = self._by_cell[_ranges(self._cell_starts[meeting], sizes)]
        firsts, numbers = np.repeat(firsts, sizes), np.repeat(numbers, sizes)
        first_sides = box_sides(self.detections.boxes, grow_px)
        second_sides = box_sides(self.truths.boxes, grow_px)
        parts = []
        for start, end in _chunks(numbers):
            of_pair = np.repeat(places[start:end], numbers[start:end])
            rows = self._truths_by_cell[_ranges(firsts[start:end], numbers[start:end])]
            crowd = self.truths.crowd[rows] if crowd_by_detection else None
            ious = paired_iou(first_sides, self.order[of_pair], second_sides, rows, crowd)
            meets = ious > 0
            parts.append((of_pair[meets], rows[meets], ious[meets]))
        return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def stable_argsort(values: Ints) -> Ints:
    """Return the stable sorting order of whole numbers >= 0; NumPy sorts 16 bits at a time by radix."""
    if (values[1:] >= values[:-1]).all():
        return np.arange(len(values))
    highest = values.max(initial=0)
    if highest < 1 << 16:
        return np.argsort(values.astype(np.uint16), kind="stable")
    if highest < 1 << 32:
        low = np.argsort((values & 0xFFFF).astype(np.uint16), kind="stable")
        return low[np.argsort((values[low] >> 16).astype(np.uint16), kind="stable")]
    return np.argsort(values, kind="stable")


def run_starts(values: npt.NDArray[np.generic]) -> Ints:
    """Return where a new value begins in sorted values: [5, 5, 7] -> [0, 2]."""
    changes = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return np.flatnonzero(changes)


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """Return all ranges in a row: [4, 9], [2, 3] -> [4, 5, 9, 10, 11]."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def _chunks(counts: Ints) -> Iterator[tuple[int, int]]:
    """Cut the detections into stretches of about `_PAIRS_AT_ONCE` pairs; an empty one if there are none."""
    total = np.cumsum(counts)
    start = 0
    while True:
        done = int(total[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(total, done + _PAIRS_AT_ONCE, side="right")))
        yield start, min(end, len(counts))
        start = end
        if start >= len(counts):
            return


Sides = tuple[Floats, Floats, Floats, Floats, Floats]
"""x1, y1, x2, y2 and area of boxes, a column each."""


def box_sides(boxes: Floats, grow_px: float = 0.0) -> Sides:
    """Return the columns of boxes (N, 4) xywh whose widths and heights have grown by so many pixels."""
    x, y = np.ascontiguousarray(boxes[:, 0]), np.ascontiguousarray(boxes[:, 1])
    width, height = boxes[:, 2] + grow_px, boxes[:, 3] + grow_px
    return x, y, x + width, y + height, width * height


def paired_iou(
    first: Sides, first_rows: Ints, second: Sides, second_rows: Ints, crowd: Flags | None = None
) -> Floats:
    """Return the IoU of paired boxes, the share of the first where `crowd`: -> (P,), 0 where they do not touch."""
    width = np.minimum(first[2][first_rows], second[2][second_rows])
    width -= np.maximum(first[0][first_rows], second[0][second_rows])
    height = np.minimum(first[3][first_rows], second[3][second_rows])
    height -= np.maximum(first[1][first_rows], second[1][second_rows])
    touch = (width > 0) & (height > 0)
    intersection = width * height
    area = first[4][first_rows]
    union = area + second[4][second_rows] - intersection
    if crowd is not None:
        union = np.where(crowd, area, union)
    ious: Floats = np.divide(intersection, union, out=np.zeros_like(union), where=touch)
    return ious
