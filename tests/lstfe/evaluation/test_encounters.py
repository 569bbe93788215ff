"""Order, cells and overlapping pairs against plain loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lstfe.evaluation import encounters
from lstfe.evaluation.encounters import Encounters, GroundTruths, ScoredBoxes, run_starts, stable_argsort


def random_scene(seed: int, *, num_truths: int = 30, num_detections: int = 80) -> Encounters:
    random = np.random.default_rng(seed)

    def boxes(number: int) -> np.ndarray:
        return np.concatenate(
            [random.uniform(0, 20, (number, 2)), random.uniform(4, 20, (number, 2))], axis=1
        )

    def places(number: int, end: int) -> np.ndarray:
        return random.integers(0, end, number)

    truths = GroundTruths(
        places(num_truths, 5),
        1 + places(num_truths, 3),
        boxes(num_truths),
        np.ones(num_truths),
        random.random(num_truths) < 0.3,
    )
    scores = places(num_detections, 12) / 12
    found = ScoredBoxes(
        places(num_detections, 6), 1 + places(num_detections, 3), boxes(num_detections), scores
    )
    return Encounters(truths, found, by_label=True)


def as_dictionary(scene: Encounters, **options: float) -> dict[tuple[int, int], float]:
    pairs = scene.pairs(**options)  # type: ignore[arg-type]
    rows = scene.order[pairs.places]
    return dict(zip(zip(rows.tolist(), pairs.rows.tolist(), strict=True), pairs.ious.tolist(), strict=True))


def slow_pairs(scene: Encounters, grow_px: float, crowd_by_detection: bool) -> dict[tuple[int, int], float]:
    truths, found = scene.truths, scene.detections
    pairs = {}
    for d in range(len(found)):
        for g in range(len(truths)):
            if found.frames[d] != truths.frames[g] or found.labels[d] != truths.labels[g]:
                continue
            (ax, ay, aw, ah), (bx, by, bw, bh) = found.boxes[d].tolist(), truths.boxes[g].tolist()
            aw, ah, bw, bh = aw + grow_px, ah + grow_px, bw + grow_px, bh + grow_px
            width, height = min(ax + aw, bx + bw) - max(ax, bx), min(ay + ah, by + bh) - max(ay, by)
            if width > 0 and height > 0:
                is_share = truths.crowd[g] and crowd_by_detection
                union = aw * ah if is_share else aw * ah + bw * bh - width * height
                pairs[d, g] = width * height / union
    return pairs


def test_nothing_meets_nothing() -> None:
    scene = random_scene(0, num_truths=0, num_detections=0)
    assert len(scene.pairs()) == 0
    assert scene.limited(1) is scene


@pytest.mark.parametrize(("grow_px", "crowd_by_detection"), [(0.0, False), (2.0, False), (0.0, True)])
@pytest.mark.parametrize("seed", range(3))
def test_pairs_equal_a_plain_loop(grow_px: float, crowd_by_detection: bool, seed: int) -> None:
    scene = random_scene(seed)
    expected = slow_pairs(scene, grow_px, crowd_by_detection)
    assert len(expected) > 20
    found = as_dictionary(scene, grow_px=grow_px, crowd_by_detection=crowd_by_detection)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("grow_px", "left"), [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (2.0, 1.0)])
def test_data_that_has_the_corner_pixels_inside_grows_by_one_pixel_less(grow_px: float, left: float) -> None:
    scene = random_scene(4)
    inside = dataclasses.replace(scene.truths, corner_pixels_inside=True).select(np.arange(30))
    grown = Encounters(inside, scene.detections, by_label=True)
    assert as_dictionary(grown, grow_px=grow_px) == as_dictionary(scene, grow_px=left)


def test_cutting_the_pairs_into_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = random_scene(5).pairs()
    monkeypatch.setattr(encounters, "_PAIRS_AT_ONCE", 7)
    in_parts = random_scene(5).pairs()
    for column in ("places", "rows", "ious"):
        np.testing.assert_array_equal(getattr(in_parts, column), getattr(whole, column))


def test_the_order_is_by_label_then_score_then_frame_then_row() -> None:
    scene = random_scene(1)
    found = scene.detections
    keys = [(found.labels[row], -found.scores[row], found.frames[row], row) for row in range(len(found))]
    assert scene.order.tolist() == [row for *_, row in sorted(keys)]


def test_a_limit_keeps_the_best_of_each_frame_and_label() -> None:
    scene = random_scene(2)
    limited = scene.limited(2)
    assert limited.order.tolist() == scene.order[scene.rank < 2].tolist()
    assert limited.rank.max() == 1
    assert as_dictionary(limited).items() <= as_dictionary(scene).items()
    assert scene.limited(2) is limited


def test_ground_truths_of_a_detection_s_cell_are_counted() -> None:
    scene = random_scene(3)
    truths, found = scene.truths, scene.detections
    expected = [
        sum((truths.frames == found.frames[row]) & (truths.labels == found.labels[row]) & truths.crowd)
        for row in scene.order
    ]
    assert scene.spread(scene.cell_sums(truths.crowd)).tolist() == expected


@pytest.mark.parametrize("highest", [9, 70_000, 1 << 40])
def test_sorting_by_radix_is_stable(highest: int) -> None:
    values = np.random.default_rng(0).integers(0, highest, 500) // 3 * 3
    assert stable_argsort(values).tolist() == np.argsort(values, kind="stable").tolist()


def test_runs_begin_where_a_value_changes() -> None:
    assert run_starts(np.array([5, 5, 7, 5])).tolist() == [0, 2, 3]
    assert run_starts(np.array([], np.int64)).tolist() == []
