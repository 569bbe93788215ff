"""The protocols against pycocotools and against slow loops written from the published rules."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO as CocoIndex
from pycocotools.cocoeval import COCOeval

from lstfe.data.coco_video import AnnotationEntry, CategoryEntry, ImageEntry, VideoAnnotations, VideoEntry
from lstfe.errors import UserError
from lstfe.evaluation.presets import PROTOCOLS
from lstfe.evaluation.protocols import flatten_scores, score
from lstfe.evaluation.records import DetectionRecord

from .conftest import Box, slow_iou

NAMES = ("drone", "bird", "plane")


def make_annotations(
    objects: list[tuple[int, int, Box, bool]], *, num_frames: int = 4, num_classes: int = 1
) -> VideoAnnotations:
    """Two videos of `num_frames`; objects are (place of the frame 0..2*num_frames-1, label, bbox, crowd)."""
    videos = [VideoEntry(v, f"video_{v}", f"video_{v}.mp4", 400, 300, num_frames) for v in (1, 2)]
    images = [
        ImageEntry(1 + place, 1 + place // num_frames, place % num_frames, 400, 300)
        for place in range(2 * num_frames)
    ]
    entries = [
        AnnotationEntry(
            i, 1 + place, 1 + place // num_frames, 10 * label, box, box[2] * box[3], int(crowd), i
        )
        for i, (place, label, box, crowd) in enumerate(objects, start=1)
    ]
    categories = [CategoryEntry(10 * label, NAMES[label - 1]) for label in range(1, num_classes + 1)]
    return VideoAnnotations(videos, images, entries, categories)


def make_records(
    detections: list[tuple[int, int, Box, float]], *, num_frames: int = 4
) -> list[DetectionRecord]:
    """Detections are (place of the frame, label, bbox, score)."""
    return [
        DetectionRecord(f"video_{1 + place // num_frames}", place % num_frames, box, value, NAMES[label - 1])
        for place, label, box, value in detections
    ]


# ------------------------------------------------------------------------------------- slow references


def pycocotools_figures(
    annotations: VideoAnnotations, records: list[DetectionRecord]
) -> dict[str, float | None]:
    """Let pycocotools score the same, our two extra size bins included."""
    names = {video.name: video.id for video in annotations.videos}
    images = {(image.video_id, image.frame_id): image.id for image in annotations.images}
    categories = {category.name: category.id for category in annotations.categories}
    truths = [
        {"id": a.id, "image_id": a.image_id, "category_id": a.category_id, "bbox": list(a.bbox),
         "area": a.area, "iscrowd": a.iscrowd}
        for a in annotations.annotations
    ]  # fmt: skip
    found = [
        {"id": i, "image_id": images[names[r.video], r.frame_id], "category_id": categories[r.category],
         "bbox": list(r.bbox), "area": r.bbox[2] * r.bbox[3], "iscrowd": 0, "score": r.score}
        for i, r in enumerate(records, start=1)
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(annotations, truths), _index(annotations, found), "bbox")
        evaluation.params.areaRng += [[0, math.nextafter(256, 0)], [256, 1024]]
        evaluation.params.areaRngLbl += ["tiny", "small16_32"]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    keys = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    figures = dict(zip(keys, evaluation.stats.tolist(), strict=True))
    for place, key in ((4, "AP_tiny"), (5, "AP_small16_32")):
        precision = evaluation.eval["precision"][:, :, :, place, 2]
        figures[key] = float(precision[precision > -1].mean()) if (precision > -1).any() else -1.0
    return {key: None if value == -1 else value for key, value in figures.items()}


def _index(annotations: VideoAnnotations, rows: list[dict[str, Any]]) -> CocoIndex:
    index = CocoIndex()
    index.dataset = {
        "images": [{"id": image.id} for image in annotations.images],
        "categories": [{"id": category.id, "name": category.name} for category in annotations.categories],
        "annotations": rows,
    }
    index.createIndex()
    return index


def slow_voc07(
    annotations: VideoAnnotations, records: list[DetectionRecord], *, more: float = 0.0
) -> float | None:
    """PASCAL VOC 2007: each detection looks at the ground truth it overlaps most; 11 recall points.

    Sides are `more` pixels longer than they say, 1 in the devkit.
    """
    names = {video.id: video.name for video in annotations.videos}
    frames = {image.id: (names[image.video_id], image.frame_id) for image in annotations.images}
    order = {frame: place for place, frame in enumerate(frames.values())}
    averages = []
    for category in annotations.categories:
        truths = defaultdict(list)
        for a in annotations.annotations:
            if a.category_id == category.id:
                truths[frames[a.image_id]].append([a.bbox, a.iscrowd, False])
        number = sum(not crowd for of_frame in truths.values() for _, crowd, _ in of_frame)
        if number == 0:
            continue
        mine = [r for r in records if r.category == category.name]
        mine.sort(key=lambda r: (-r.score, order[r.video, r.frame_id]))
        right = wrong = 0
        curve = []
        for record in mine:
            best, best_iou = None, 0.0
            for truth in truths[record.video, record.frame_id]:
                overlap = slow_iou(record.bbox, truth[0], more=more)
                if overlap > best_iou:
                    best, best_iou = truth, overlap
            if best is not None and best_iou >= 0.5:
                if best[1]:
                    continue
                right, wrong = (right, wrong + 1) if best[2] else (right + 1, wrong)
                best[2] = True
            else:
                wrong += 1
            curve.append((right / number, right / (right + wrong)))
        points = [max((p for r, p in curve if r >= level), default=0.0) for level in np.arange(0.0, 1.1, 0.1)]
        averages.append(sum(points) / 11)
    return sum(averages) / len(averages) if averages else None


# ------------------------------------------------------------------------------------------ strategies

# Few whole numbers in a small place, so that equal scores, equal overlaps, overlaps of exactly 0.5 and
# overlapping ground truths on both sides of a size bin's edge (16, 32, 96 pixels) occur all the time.
_corner = st.integers(0, 4).map(lambda v: v * 2.0)
_crowded = st.tuples(_corner, _corner, *[st.sampled_from([4.0, 8.0, 14.0, 16.0, 18.0])] * 2)
_edges = st.tuples(_corner, _corner, *[st.sampled_from([28.0, 32.0, 36.0, 92.0, 96.0, 100.0])] * 2)
_smooth = st.tuples(*[st.floats(0, 60)] * 2, *[st.floats(1, 150)] * 2)
_any_box = st.one_of(_crowded, _crowded, _edges, _smooth)
_place, _label = st.integers(2, 5), st.integers(1, 3).map(lambda v: max(1, v - 1))
_objects = st.lists(
    st.tuples(_place, _label, _any_box, st.sampled_from([False, False, False, True])), max_size=14
)
_scores = st.one_of(st.sampled_from([0.1, 0.5, 0.9]), st.floats(0, 1))
_found = st.lists(st.tuples(_place, _label, _any_box, _scores), max_size=20)
# Most random boxes miss each other; these copy a ground truth with a small shift.
_copies = st.lists(
    st.tuples(st.integers(0, 13), st.integers(-2, 2), st.integers(-2, 2), _scores), max_size=30
)


def _with_copies(
    objects: list[tuple[int, int, Box, bool]],
    found: list[tuple[int, int, Box, float]],
    copies: list[tuple[int, int, int, float]],
) -> list[DetectionRecord]:
    close = []
    for which, right, down, value in copies if objects else []:
        place, label, (x, y, width, height), _ = objects[which % len(objects)]
        close.append((place, label, (x + 2 * right, y + 2 * down, width, height), value))
    return make_records(found + close)


@settings(max_examples=100, deadline=None)
@given(_objects, _found, _copies)
def test_coco_equals_pycocotools(objects: Any, found: Any, copies: Any) -> None:
    annotations, records = make_annotations(objects, num_classes=3), _with_copies(objects, found, copies)
    expected = pycocotools_figures(annotations, records)
    figures = score(annotations, records, ["coco"])["coco"]
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(_objects, _found, _copies)
def test_voc07_equals_a_slow_loop(objects: Any, found: Any, copies: Any) -> None:
    annotations, records = make_annotations(objects, num_classes=3), _with_copies(objects, found, copies)
    assert score(annotations, records, ["voc07"])["voc07"]["AP50"] == pytest.approx(
        slow_voc07(annotations, records), abs=1e-9
    )


@settings(max_examples=100, deadline=None)
@given(_objects, _found, _copies)
def test_voc07_inclusive_adds_the_pixel_of_the_devkit_once(objects: Any, found: Any, copies: Any) -> None:
    annotations, records = make_annotations(objects, num_classes=3), _with_copies(objects, found, copies)
    for inside, more in ((False, 1.0), (True, 0.0)):
        of_this = dataclasses.replace(annotations, corner_pixels_inside=inside)
        assert score(of_this, records, ["voc07_inclusive"])["voc07_inclusive"]["AP50"] == pytest.approx(
            slow_voc07(of_this, records, more=more), abs=1e-9
        )


# ------------------------------------------------------------------------------------------- the edges


def test_of_two_equal_overlaps_coco_takes_the_last_and_voc07_the_first() -> None:
    left, right = (0.0, 0.0, 16.0, 16.0), (4.0, 0.0, 16.0, 16.0)
    annotations = make_annotations([(0, 1, left, False), (0, 1, right, False)])
    between = (0, 1, (2.0, 0.0, 16.0, 16.0), 0.9)
    only_left, only_right = (0, 1, (-4.0, 0.0, 16.0, 16.0), 0.8), (0, 1, (8.0, 0.0, 16.0, 16.0), 0.8)
    for second, coco, voc07 in ((only_left, 1.0, 6 / 11), (only_right, 51 / 101, 1.0)):
        records = make_records([between, second])
        scores = score(annotations, records, PROTOCOLS)
        assert scores["coco"]["AP50"] == pytest.approx(coco)
        assert scores["coco"]["AP50"] == pytest.approx(pycocotools_figures(annotations, records)["AP50"])
        assert scores["voc07"]["AP50"] == pytest.approx(voc07)


def test_a_ground_truth_of_the_bin_is_preferred_to_a_better_one_outside() -> None:
    outside, of_the_bin = (0.0, 0.0, 18.0, 18.0), (0.0, 0.0, 14.0, 14.0)
    annotations = make_annotations([(0, 1, outside, False), (0, 1, of_the_bin, False)])
    records = make_records([(0, 1, (0.0, 0.0, 17.0, 17.0), 0.9)])
    assert score(annotations, records, ["coco"])["coco"]["AR100"] == pytest.approx(
        0.4
    )  # takes the larger one
    assert score(annotations, records, ["coco"])["coco"]["AP_tiny"] == pytest.approx(
        0.4
    )  # IoU 0.68: up to 0.65
    assert pycocotools_figures(annotations, records)["AP_tiny"] == pytest.approx(0.4)


def test_without_ground_truth_every_figure_is_null() -> None:
    records = make_records([(0, 1, (1, 1, 8, 8), 0.9)])
    scores = score(make_annotations([]), records, PROTOCOLS)
    assert all(scores[name][figure] is None for name, of in PROTOCOLS.items() for figure in of.figures)
    assert scores["coco"]["num_detections"] == 1
    assert "null" in json.dumps(scores)


def test_without_detections_every_figure_with_ground_truth_is_zero() -> None:
    scores = score(make_annotations([(0, 1, (1, 1, 8, 8), False)]), [], PROTOCOLS)
    assert scores["voc07"]["AP50"] == 0
    assert scores["coco"]["AP_tiny"] == 0
    assert scores["coco"]["AR100"] == 0
    assert scores["coco"]["APm"] is None


def test_perfect_detections_score_one_in_their_size_bin_alone() -> None:
    boxes = [(float(20 * i), 5.0, 10.0, 10.0) for i in range(4)]
    annotations = make_annotations([(i, 1, box, False) for i, box in enumerate(boxes)])
    scores = score(annotations, make_records([(i, 1, box, 0.5) for i, box in enumerate(boxes)]), PROTOCOLS)
    assert scores["coco"]["AP"] == pytest.approx(1)
    assert scores["coco"]["AP_tiny"] == pytest.approx(1)
    assert scores["coco"]["AP_small16_32"] is None
    assert scores["voc07"]["AP50"] == pytest.approx(1)


def test_the_two_protocols_differ_where_the_best_ground_truth_is_taken() -> None:
    near, far = (0.0, 0.0, 10.0, 10.0), (0.0, 3.0, 10.0, 10.0)
    annotations = make_annotations([(0, 1, near, False), (0, 1, far, False)])
    records = make_records([(0, 1, near, 0.9), (0, 1, (0.0, 1.0, 10.0, 10.0), 0.8)])
    scores = score(annotations, records, PROTOCOLS)
    assert scores["coco"]["AP50"] == pytest.approx(1)  # the second takes `far`, IoU 0.67
    assert scores["voc07"]["AP50"] == pytest.approx(6 / 11)  # the second insists on `near`: recall stays 0.5


def test_counts_split_and_stride_stand_beside_the_figures() -> None:
    objects = [(0, 1, (1.0, 1.0, 8.0, 8.0), False), (1, 1, (1.0, 1.0, 8.0, 8.0), False)]
    records = make_records([(0, 1, (1, 1, 8, 8), 0.9), (1, 1, (1, 1, 8, 8), 0.9), (3, 1, (1, 1, 8, 8), 0.9)])
    found = score(make_annotations(objects), records, ["coco"], frame_stride=2, split="test")["coco"]
    expected = {
        "split": "test", "frame_stride": 2, "num_frames": 4, "num_empty_frames": 3, "num_ground_truths": 1,
        "num_detections": 1,
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["num_ground_truths_by_bin"] == {
        "small": 1, "medium": 0, "large": 0, "tiny": 1, "small16_32": 0,
        "motion_slow": 0, "motion_medium": 0, "motion_fast": 0,
    }  # fmt: skip


def test_the_stride_counts_from_the_first_frame_that_the_split_has() -> None:
    whole = make_annotations([(place, 1, (1.0, 1.0, 8.0, 8.0), False) for place in range(8)])
    second_half = VideoAnnotations(
        whole.videos,
        [image for image in whole.images if image.frame_id >= 1],
        [entry for entry in whole.annotations if (entry.image_id - 1) % 4 >= 1],
        whole.categories,
    )
    records = make_records([(1, 1, (1, 1, 8, 8), 0.9), (3, 1, (1, 1, 8, 8), 0.9)])
    found = score(second_half, records, ["coco"], frame_stride=2)["coco"]
    assert found["num_frames"] == 4
    assert found["num_detections"] == 2


def test_only_the_asked_for_frames_are_scored() -> None:
    annotations = make_annotations([(place, 1, (1.0, 1.0, 8.0, 8.0), False) for place in range(8)])
    records = make_records([(1, 1, (1, 1, 8, 8), 0.9)])
    found = score(annotations, records, ["voc07"], frames={"video_1": [1]})["voc07"]
    assert found["AP50"] == pytest.approx(1)
    assert found["num_ground_truths"] == 1


def test_one_class_has_no_table_and_two_have_a_row_each() -> None:
    objects = [(0, 1, (1.0, 1.0, 8.0, 8.0), False)]
    records = make_records([(0, 1, (1, 1, 8, 8), 0.9)])
    assert "per_class" not in score(make_annotations(objects), records, ["coco"])["coco"]
    table = score(make_annotations(objects, num_classes=2), records, ["voc07"])["voc07"]["per_class"]
    assert table["drone"]["AP50"] == pytest.approx(1)
    assert table["bird"]["AP50"] is None
    assert [row["num_ground_truths"] for row in table.values()] == [1, 0]
    assert [row["recall_at_1_fp"] for row in table.values()] == [1, None]


def test_an_unknown_protocol_is_refused_with_the_known_names() -> None:
    with pytest.raises(UserError, match=r"unknown evaluation protocol 'map', expected one of coco, voc07"):
        score(make_annotations([]), [], ["map"])


def test_flat_scores_are_dotted_numbers_without_nulls() -> None:
    scores = {"coco": {"AP": 0.5, "APl": None, "split": "test", "per_class": {"drone": {"AP": 0.5}}}}
    assert flatten_scores(scores) == {"coco.AP": 0.5, "coco.per_class.drone.AP": 0.5}
