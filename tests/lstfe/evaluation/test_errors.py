"""Kinds of errors by hand-made cases, and against loops written from the definitions of TIDE."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lstfe.evaluation.errors import DETECTION_KINDS, KINDS, break_down, judge
from lstfe.evaluation.protocols import score
from lstfe.evaluation.records import scored_frames

from .conftest import FAR, OBJECT, Box, Scene, one_frame, slow_iou

NEAR: Box = (110.0, 100.0, 20.0, 20.0)  # IoU 1/3


def counts(scene: Scene) -> dict[str, int]:
    return {kind: count for kind, count in break_down(scored_frames(*scene)).counts.items() if count}


# -------------------------------------------------------------------------------------- slow reference


def slow_frames(scene: Scene) -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Frame by frame: objects without crowds, and detections, best first, each as a dictionary."""
    annotations, records = scene
    frames = []
    for video in annotations.videos:
        for image in annotations.images_by_video[video.name]:
            entries = annotations.annotations_by_image.get(image.id, [])
            objects = [
                {"box": e.bbox, "label": annotations.label_names[e.category_id - 1], "crowd": bool(e.iscrowd)}
                for e in entries
            ]
            found = [
                {"box": r.bbox, "label": r.category, "score": r.score}
                for r in records
                if (r.video, r.frame_id) == (video.name, image.frame_id)
            ]
            frames.append((objects, sorted(found, key=lambda d: -d["score"])))
    return frames


def slow_match(objects: list[dict[str, Any]], detections: list[dict[str, Any]]) -> None:
    """Note on each detection what it is matched to (COCO's rule), and on each object what found it."""
    for detection in detections:
        detection["match"], best = None, 0.5
        for is_crowd in (False, True):
            for truth in objects:
                if truth["label"] != detection["label"] or truth["crowd"] != is_crowd or "finder" in truth:
                    continue
                iou = slow_iou(detection["box"], truth["box"])
                if is_crowd:
                    a, b = detection["box"], truth["box"]
                    area = a[2] * a[3]
                    iou = iou * (area + b[2] * b[3]) / (1 + iou) / area if iou else 0.0
                if iou >= best:
                    detection["match"], best = truth, iou
            if detection["match"] is not None:
                break
        if detection["match"] is not None and not detection["match"]["crowd"]:
            detection["match"]["finder"] = detection


def slow_kinds(objects: list[dict[str, Any]], detections: list[dict[str, Any]]) -> None:
    real = [truth for truth in objects if not truth["crowd"]]
    for detection in detections:
        if detection["match"] is not None:
            continue
        own = [(slow_iou(detection["box"], t["box"]), t) for t in real if t["label"] == detection["label"]]
        other = [(slow_iou(detection["box"], t["box"]), t) for t in real if t["label"] != detection["label"]]
        best_own = max(own, key=lambda pair: pair[0], default=(0.0, None))
        best_other = max(other, key=lambda pair: pair[0], default=(0.0, None))
        if 0.1 <= best_own[0] < 0.5:
            detection["kind"], detection["target"] = "localisation", best_own[1]
        elif best_other[0] >= 0.5:
            detection["kind"], detection["target"] = "confusion", best_other[1]
        elif best_own[0] >= 0.5:
            detection["kind"] = "duplicate"
        elif max(best_own[0], best_other[0]) < 0.1:
            detection["kind"] = "background"
        else:
            detection["kind"] = "both"
    targets = [d["target"] for d in detections if "target" in d]
    for truth in real:
        truth["missed"] = "finder" not in truth and not any(truth is target for target in targets)


def slow_mended(
    objects: list[dict[str, Any]], detections: list[dict[str, Any]], kind: str | None
) -> list[tuple[str, float, bool]]:
    """The frame's counted detections as (label, score, right), all errors of the kind mended."""
    rows = []
    mended: list[Any] = []
    for detection in detections:
        if detection["match"] is not None:
            if not detection["match"]["crowd"]:
                rows.append((detection["label"], detection["score"], True))
        elif detection["kind"] != kind:
            rows.append((detection["label"], detection["score"], False))
        elif "target" in detection:
            target = detection["target"]
            if "finder" not in target and not any(target is other for other in mended):
                mended.append(target)
                rows.append((target["label"], detection["score"], True))
    return rows


def slow_ap(rows: list[tuple[str, float, bool]], num_objects: int, label: str) -> float:
    found, curve = 0, []
    chosen = sorted((row for row in rows if row[0] == label), key=lambda row: -row[1])
    for number, (_, _, right) in enumerate(chosen, start=1):
        found += right
        curve.append((found / num_objects if num_objects else 0.0, found / number))
    points = np.linspace(0, 1, 101).tolist()
    best = [max((p for r, p in curve if r >= point), default=0.0) for point in points]
    return sum(best) / 101 if num_objects else 0.0


def slow_break_down(scene: Scene) -> tuple[dict[str, int], dict[str, float]]:
    frames = slow_frames(scene)
    for objects, detections in frames:
        slow_match(objects, detections)
        slow_kinds(objects, detections)
    found = dict.fromkeys(KINDS, 0)
    for objects, detections in frames:
        for detection in detections:
            if "kind" in detection:
                found[detection["kind"]] += 1
        found["missed"] += sum(truth.get("missed", False) for truth in objects)
    real = [truth for objects, _ in frames for truth in objects if not truth["crowd"]]
    labels = sorted({truth["label"] for truth in real})
    values = {}
    for kind in (None, *KINDS):
        rows = [row for frame in frames for row in slow_mended(*frame, kind)]
        aps = []
        for label in labels:
            left = [t for t in real if t["label"] == label and not (kind == "missed" and t["missed"])]
            aps.append(slow_ap(rows, len(left), label))
        values[kind] = sum(aps) / len(aps)
    return found, {kind: values[kind] - values[None] for kind in KINDS}


# ----------------------------------------------------------------------------------------------- tests


def test_without_objects_there_is_no_gain_and_every_detection_is_background() -> None:
    found = break_down(scored_frames(*one_frame([], [("drone", FAR, 0.9)])))
    assert found.ap50 is None
    assert found.counts == dict.fromkeys(KINDS, 0) | {"background": 1}
    assert set(found.gains.values()) == {None}


def test_without_detections_every_object_is_missed_and_ap_stays_zero() -> None:
    found = break_down(scored_frames(*one_frame([("drone", OBJECT)], [])))
    assert found.counts == dict.fromkeys(KINDS, 0) | {"missed": 1}
    assert found.ap50 == 0.0
    assert found.gains["missed"] == 0.0


@pytest.mark.parametrize(
    ("detection", "expected"),
    [
        (("drone", OBJECT, 0.9), {}),
        (("drone", NEAR, 0.9), {"localisation": 1}),
        (("bird", OBJECT, 0.9), {"confusion": 1}),
        (("bird", NEAR, 0.9), {"both": 1, "missed": 1}),
        (("drone", FAR, 0.9), {"background": 1, "missed": 1}),
    ],
    ids=["right", "near", "wrong class", "near and of the wrong class", "nowhere"],
)
def test_one_detection_of_one_drone(detection: tuple[str, Box, float], expected: dict[str, int]) -> None:
    assert counts(one_frame([("drone", OBJECT)], [detection])) == expected


def test_the_second_detection_of_an_object_is_a_duplicate() -> None:
    scene = one_frame([("drone", OBJECT)], [("drone", OBJECT, 0.5), ("drone", OBJECT, 0.9)])
    assert counts(scene) == {"duplicate": 1}
    verdicts = judge(scored_frames(*scene))
    assert verdicts.right.tolist() == [False, True]
    assert verdicts.wrong.tolist() == [True, False]


def test_a_crowd_is_neither_missed_nor_is_what_lies_in_it_an_error() -> None:
    annotations, records = one_frame([("drone", OBJECT)], [("drone", OBJECT, 0.9), ("drone", OBJECT, 0.8)])
    crowd = [dataclasses.replace(entry, iscrowd=1) for entry in annotations.annotations]
    assert counts((dataclasses.replace(annotations, annotations=crowd), records)) == {}


def test_mending_gives_what_the_fix_is_worth() -> None:
    scene = one_frame(
        [("drone", OBJECT), ("drone", FAR)],
        [("drone", (200.0, 100.0, 20.0, 20.0), 0.9), ("drone", OBJECT, 0.8), ("drone", (20.0, 10.0, 20.0, 20.0), 0.7)],
    )  # fmt: skip
    found = break_down(scored_frames(*scene))
    assert found.counts == dict.fromkeys(KINDS, 0) | {"background": 1, "localisation": 1}
    assert found.ap50 == pytest.approx(51 / 101 * 1 / 2)  # recall 0..0.5 at precision 1/2
    assert found.gains["background"] == pytest.approx(51 / 101 - 51 / 202)
    assert found.gains["localisation"] == pytest.approx(2 / 3 - 51 / 202)
    assert found.gains["duplicate"] == 0.0


def test_of_two_near_detections_only_the_better_becomes_right() -> None:
    scene = one_frame([("drone", OBJECT)], [("drone", NEAR, 0.9), ("drone", NEAR, 0.8)])
    found = break_down(scored_frames(*scene))
    assert found.counts["localisation"] == 2
    assert found.gains["localisation"] == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(12))
def test_counts_and_gains_equal_those_of_slow_loops(seed: int, random_scene: Callable[..., Scene]) -> None:
    scene = random_scene(seed, num_videos=4)
    expected_counts, expected_gains = slow_break_down(scene)
    found = break_down(scored_frames(*scene))
    assert found.counts == expected_counts
    assert found.gains == pytest.approx(expected_gains, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_ap_before_mending_is_that_of_coco(seed: int, random_scene: Callable[..., Scene]) -> None:
    scene = random_scene(seed)
    found = break_down(scored_frames(*scene))
    assert found.ap50 == pytest.approx(score(*scene, ["coco"])["coco"]["AP50"], abs=1e-12)


def test_every_detection_is_right_or_an_error_of_one_kind(random_scene: Callable[..., Scene]) -> None:
    annotations, records = random_scene(7)
    no_crowds = [dataclasses.replace(entry, iscrowd=0) for entry in annotations.annotations]
    verdicts = judge(scored_frames(dataclasses.replace(annotations, annotations=no_crowds), records))
    assert np.all(verdicts.right ^ verdicts.wrong)
    assert set(verdicts.kinds[verdicts.wrong].tolist()) == set(range(len(DETECTION_KINDS)))


def test_the_report_of_errors_names_every_kind() -> None:
    found = break_down(scored_frames(*one_frame([("drone", OBJECT)], [("drone", OBJECT, 0.9)])))
    content = dataclasses.replace(found, ap50=1.0).to_json()
    assert content == {"AP50": 1.0, **{kind: {"count": 0, "gain_AP50": 0.0} for kind in KINDS}}
