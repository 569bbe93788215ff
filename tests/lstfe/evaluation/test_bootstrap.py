"""Intervals against a slow reference that really copies videos, and against what is known without computing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np
import pytest

from lstfe.data.coco_video import AnnotationEntry, CategoryEntry, ImageEntry, VideoAnnotations, VideoEntry
from lstfe.errors import UserError
from lstfe.evaluation import bootstrap
from lstfe.evaluation.bootstrap import (
    add_intervals,
    draw_videos,
    intervals,
    paired_differences,
    resample_figures,
    video_names,
)
from lstfe.evaluation.presets import COCO, PROTOCOLS, VOC07
from lstfe.evaluation.protocols import score
from lstfe.evaluation.records import DetectionRecord, scored_frames

Scene = tuple[VideoAnnotations, list[DetectionRecord]]


def copy_videos(scene: Scene, times: list[int]) -> Scene:
    """Return the scene with each video as often as `times` says; copies of a frame follow each other."""
    annotations, records = scene
    videos, images, objects, detections = [], [], [], []
    place = {video.id: number for number, video in enumerate(annotations.videos)}
    for video in annotations.videos:
        for copy in range(times[place[video.id]]):
            name = f"{video.name}_{copy}"
            videos.append(dataclasses.replace(video, id=100 * video.id + copy, name=name))
            detections += [dataclasses.replace(r, video=name) for r in records if r.video == video.name]
    for image in annotations.images:
        for copy in range(times[place[image.video_id]]):
            video_id = 100 * image.video_id + copy
            images.append(dataclasses.replace(image, id=100 * image.id + copy, video_id=video_id))
    for entry in annotations.annotations:
        for copy in range(times[place[entry.video_id]]):
            ids = (10_000 + len(objects), 100 * entry.image_id + copy, 100 * entry.video_id + copy)
            objects.append(dataclasses.replace(entry, id=ids[0], image_id=ids[1], video_id=ids[2]))
    return VideoAnnotations(videos, images, objects, annotations.categories), detections


def as_number(value: float | None) -> float:
    return np.nan if value is None else value


@pytest.mark.parametrize("name", PROTOCOLS)
def test_without_detections_and_without_ground_truths_nothing_fails(
    name: str, random_scene: Callable[..., Scene]
) -> None:
    annotations, records = random_scene(0)
    no_objects = dataclasses.replace(annotations, annotations=[])
    for truths, detections in ((annotations, []), (no_objects, records), (no_objects, [])):
        scored = scored_frames(truths, detections)
        found = resample_figures(PROTOCOLS[name], scored, draw_videos(5, resamples=3, seed=0))
        undefined = [np.isnan(values).all() for values in found.values()]
        assert all(undefined) if truths is no_objects else not undefined[0]
        if truths is no_objects:
            assert set(intervals(PROTOCOLS[name], scored, resamples=3, seed=0).values()) == {None}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("seed", range(6))
def test_every_video_counted_once_gives_the_figures_of_the_protocol(
    name: str, seed: int, random_scene: Callable[..., Scene]
) -> None:
    annotations, records = random_scene(seed)
    figures = score(annotations, records, [name])[name]
    found = resample_figures(PROTOCOLS[name], scored_frames(annotations, records), np.ones((1, 5), np.int64))
    for figure, values in found.items():
        assert values == pytest.approx([as_number(figures[figure])], abs=1e-12, nan_ok=True), figure


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("seed", range(6))
def test_a_resample_scores_like_the_drawn_videos_themselves(
    name: str, seed: int, random_scene: Callable[..., Scene]
) -> None:
    scene = random_scene(seed)
    weights = draw_videos(5, resamples=4, seed=seed)
    found = resample_figures(PROTOCOLS[name], scored_frames(*scene), weights)
    for number, times in enumerate(weights.tolist()):
        expected = score(*copy_videos(scene, times), [name])[name]
        for figure, values in found.items():
            if PROTOCOLS[name].figures[figure].bin not in PROTOCOLS[name].motion_bins:  # see the module
                assert values[number] == pytest.approx(as_number(expected[figure]), abs=1e-12, nan_ok=True)


def test_resamples_draw_as_many_videos_as_there_are_and_depend_on_the_seed_alone() -> None:
    weights = draw_videos(7, resamples=50, seed=3)
    assert weights.shape == (50, 7)
    assert set(weights.sum(axis=1).tolist()) == {7}
    assert np.array_equal(weights, draw_videos(7, resamples=50, seed=3))
    assert not np.array_equal(weights, draw_videos(7, resamples=50, seed=4))
    assert draw_videos(0, resamples=2, seed=0).shape == (2, 0)


def test_one_video_has_no_interval(random_scene: Callable[..., Scene]) -> None:
    scored = scored_frames(*random_scene(0, num_videos=1))
    assert set(intervals(COCO, scored, resamples=10, seed=0).values()) == {None}


def test_a_size_that_only_one_video_has_gets_no_interval(random_scene: Callable[..., Scene]) -> None:
    annotations, records = random_scene(0)
    objects = [
        dataclasses.replace(entry, area=100.0 if entry.video_id == 1 else 2000.0)
        for entry in annotations.annotations
    ]
    scored = scored_frames(dataclasses.replace(annotations, annotations=objects), records)
    found = intervals(COCO, scored, resamples=20, seed=0)
    assert found["AP_tiny"] is None
    assert found["APm"] is not None


def test_an_interval_holds_the_figure_and_95_percent_of_the_resamples(
    random_scene: Callable[..., Scene],
) -> None:
    annotations, records = random_scene(1, num_videos=12)
    scored = scored_frames(annotations, records)
    found = intervals(VOC07, scored, resamples=400, seed=0)["AP50"]
    assert found is not None
    low, high = found
    assert low < score(annotations, records, ["voc07"])["voc07"]["AP50"] < high
    values = resample_figures(VOC07, scored, draw_videos(12, resamples=400, seed=0))["AP50"]
    assert ((values >= low) & (values <= high)).mean() == pytest.approx(0.95, abs=0.005)


def test_more_videos_give_a_narrower_interval(random_scene: Callable[..., Scene]) -> None:
    widths = []
    for times in (1, 4):
        scored = scored_frames(*copy_videos(random_scene(2, num_videos=10), [times] * 10))
        low, high = intervals(VOC07, scored, resamples=400, seed=0)["AP50"] or (0.0, 0.0)
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 2, rel=0.25)  # one over the root of four


def test_intervals_stand_beside_the_figures_with_the_number_of_videos(
    random_scene: Callable[..., Scene],
) -> None:
    annotations, records = random_scene(0)
    scores = score(annotations, records, ["coco", "voc07"])
    scored = scored_frames(annotations, records)
    completed = add_intervals(scores, scored, resamples=30, seed=0)
    assert completed["voc07"].items() >= scores["voc07"].items()
    assert completed["voc07"]["num_videos"] == 5
    assert completed["voc07"]["AP50_interval"] == list(
        intervals(VOC07, scored, resamples=30, seed=0)["AP50"] or ()
    )
    assert completed["coco"]["APl_interval"] is None
    assert "AP50_interval" not in add_intervals(scores, scored, resamples=0, seed=0)["voc07"]


def test_a_detector_does_not_differ_from_itself(random_scene: Callable[..., Scene]) -> None:
    scored = scored_frames(*random_scene(0))
    found = paired_differences(VOC07, scored, scored, resamples=20, seed=0)["AP50"]
    assert (found.difference, found.interval, found.share_better) == (0.0, (0.0, 0.0), 0.0)


def test_a_detector_that_is_better_in_every_video_is_better_in_every_resample(
    random_scene: Callable[..., Scene],
) -> None:
    annotations, _ = random_scene(3)
    names = {video.id: video.name for video in annotations.videos}
    frames = {image.id: image.frame_id for image in annotations.images}
    perfect = [
        DetectionRecord(
            names[entry.video_id], frames[entry.image_id], entry.bbox, 1 - 0.001 * entry.id,
            annotations.label_names[entry.category_id - 1],
        )
        for entry in annotations.annotations
    ]  # fmt: skip
    missing_half = scored_frames(annotations, perfect[::2])
    first = scored_frames(annotations, perfect)
    found = paired_differences(VOC07, first, missing_half, resamples=50, seed=0)["AP50"]
    assert found.interval is not None
    assert 0 < found.interval[0] < (found.difference or 0) < found.interval[1]
    assert found.share_better == 1.0
    reverse = paired_differences(VOC07, missing_half, first, resamples=50, seed=0)["AP50"]
    assert reverse.share_better == 0.0
    assert reverse.difference == -(found.difference or 0)


def test_the_paired_interval_is_of_differences_under_the_same_draws(
    random_scene: Callable[..., Scene],
) -> None:
    annotations, records = random_scene(4, num_videos=8)
    first, second = (scored_frames(annotations, part) for part in (records, records[::3]))
    weights = draw_videos(8, resamples=100, seed=5)
    values = [resample_figures(VOC07, scored, weights)["AP50"] for scored in (first, second)]
    low, high = np.quantile(values[0] - values[1], [0.025, 0.975])
    found = paired_differences(VOC07, first, second, resamples=100, seed=5)["AP50"]
    assert found.interval == pytest.approx((low, high), abs=1e-12)


def test_one_video_gives_a_difference_without_an_interval(random_scene: Callable[..., Scene]) -> None:
    annotations, records = random_scene(0, num_videos=1)
    first, second = (scored_frames(annotations, part) for part in (records, []))
    found = paired_differences(VOC07, first, second, resamples=10, seed=0)["AP50"]
    assert found.difference is not None
    assert (found.interval, found.share_better) == (None, None)


def test_detectors_scored_on_different_frames_are_not_compared(random_scene: Callable[..., Scene]) -> None:
    annotations, records = random_scene(0)
    first, second = (scored_frames(annotations, records, frame_stride=stride) for stride in (1, 2))
    with pytest.raises(UserError, match="score both on one split with one frame_stride"):
        paired_differences(VOC07, first, second, resamples=10, seed=0)


def test_resamples_taken_a_few_at_a_time_are_the_same(
    random_scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, weights = scored_frames(*random_scene(0)), draw_videos(5, resamples=40, seed=0)
    whole = resample_figures(COCO, scored, weights)
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", 50)  # so that each part has a few of them
    in_parts = resample_figures(COCO, scored, weights)
    for figure, values in whole.items():
        np.testing.assert_allclose(in_parts[figure], values, rtol=0, atol=1e-12, err_msg=figure)


def test_a_hundred_resamples_of_twenty_thousand_detections_take_seconds() -> None:
    random = np.random.default_rng(0)
    videos = [VideoEntry(v, f"v{v}", "", 640, 480, 200) for v in range(1, 11)]
    images = [ImageEntry(1 + i, 1 + i // 200, i % 200, 640, 480) for i in range(2000)]
    boxes = [tuple(box) for box in random.uniform(10, 100, (2000, 4)).tolist()]
    objects = [
        AnnotationEntry(i, i, images[i - 1].video_id, 1, box, box[2] * box[3], 0, 1)
        for i, box in enumerate(boxes, start=1)
    ]
    scene = VideoAnnotations(videos, images, objects, [CategoryEntry(1, "drone")])
    found = [
        DetectionRecord(f"v{image.video_id}", image.frame_id, tuple(box), float(value), "drone")
        for image, truth in zip(images, boxes, strict=True)
        for box, value in zip(
            (np.array(truth) + random.normal(0, 3, (10, 4))).clip(1), random.random(10), strict=True
        )
    ]
    scored = scored_frames(scene, found)
    started = time.perf_counter()
    found_intervals = intervals(COCO, scored, resamples=100, seed=0)
    assert time.perf_counter() - started < 6  # a thousand, which a run takes, in a minute
    assert found_intervals["AP"] is not None
    assert video_names(scored) == [video.name for video in videos]
