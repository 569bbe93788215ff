"""The benchmark's generated trees are what the importers expect: a few small ones come over whole."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.import_scale import WRITERS, boxes_of, num_boxes
from lstfe.data.coco_video import load_annotations
from lstfe.data.raw import ImportOptions


@pytest.mark.parametrize("data_format", ["fl_drones", "imagenet_vid", "coco_video", "mot", "cvat", "voc"])
def test_a_generated_tree_comes_over_box_for_box(tmp_path: Path, data_format: str) -> None:
    WRITERS[data_format](tmp_path / "source", 3, 7)
    importer = getattr(import_module(f"lstfe.data.importers.{data_format}"), f"import_{data_format}")
    importer(tmp_path / "source", tmp_path / "raw", ImportOptions(split="none", annotations_only=True))
    annotations = load_annotations(tmp_path / "raw" / "annotations" / "all.json")
    assert len(annotations.videos) == 3
    assert len(annotations.annotations) == num_boxes(3, 7)
    for video in annotations.videos:
        for frame in range(7):
            expected = boxes_of(int(video.name[-4:]), frame)
            assert sorted(map(tuple, annotations.boxes(video.name, frame)[0].tolist())) == sorted(expected)
