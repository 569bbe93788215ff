"""Curves as files: what DVC plots and what a person looks at."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lstfe.data.coco_video import VideoAnnotations
from lstfe.evaluation.curves import write_curves
from lstfe.evaluation.protocols import score
from lstfe.evaluation.records import DetectionRecord


def records_of(annotations: VideoAnnotations, *, found: int) -> list[DetectionRecord]:
    """The first `found` objects, and a false detection with a middling score."""
    videos = {video.id: video.name for video in annotations.videos}
    frames = {image.id: image.frame_id for image in annotations.images}
    records = [
        DetectionRecord(videos[o.video_id], frames[o.image_id], o.bbox, 1 - i / 100, "drone")
        for i, o in enumerate(annotations.annotations[:found])
    ]
    return [*records, DetectionRecord("left", 0, (1.0, 1.0, 9.0, 9.0), 0.95, "drone")]


def read_columns(path: Path) -> dict[str, list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_without_ground_truth_cells_are_empty_and_the_picture_says_so(
    annotations: VideoAnnotations, tmp_path: Path
) -> None:
    empty = VideoAnnotations(annotations.videos, annotations.images, [], annotations.categories)
    paths = write_curves(empty, [], ["coco"], tmp_path / "plots")
    assert set(read_columns(paths[0])["precision"]) == {""}
    assert Image.open(paths[-1]).size[0] > 300


def test_the_mean_of_a_column_is_the_average_precision(annotations: VideoAnnotations, tmp_path: Path) -> None:
    records = records_of(annotations, found=10)
    paths = write_curves(annotations, records, ["coco", "voc07"], tmp_path)
    assert [path.name for path in paths] == [
        "precision_recall_coco.csv",
        "precision_recall_voc07.csv",
        "precision_recall.png",
    ]
    scores = score(annotations, records, ["coco", "voc07"])
    assert 0 < scores["coco"]["AP50"] < 1
    for name, path in zip(scores, paths, strict=False):
        precision = [float(value) for value in read_columns(path)["precision"]]
        assert np.mean(precision) == pytest.approx(scores[name]["AP50"], abs=1e-6)


def test_there_is_a_column_for_each_bin_of_size_and_motion(
    annotations: VideoAnnotations, tmp_path: Path
) -> None:
    columns = read_columns(
        write_curves(annotations, records_of(annotations, found=14), ["coco"], tmp_path)[0]
    )
    assert list(columns) == ["recall", "precision"] + [
        f"precision_{name}"
        for name in (
            "small",
            "medium",
            "large",
            "tiny",
            "small16_32",
            "motion_slow",
            "motion_medium",
            "motion_fast",
        )
    ]
    assert columns["recall"] == [f"{i / 100:.2f}" for i in range(101)]
    assert columns["precision_tiny"] == columns["precision"]  # all objects are 14x10
    assert set(columns["precision_large"]) == {""}


def test_the_same_detections_give_the_same_files(annotations: VideoAnnotations, tmp_path: Path) -> None:
    records = records_of(annotations, found=10)
    first, second = (write_curves(annotations, records, ["coco"], tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
