"""Everything an evaluation writes, in one call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lstfe.config import EvaluateConfig
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.evaluation.records import DetectionRecord, load_detections
from lstfe.evaluation.results import write_results

FILES = {"detections.json", "errors.json", "metrics.json", "pictures", "plots", "report.html"}


@pytest.fixture
def config() -> EvaluateConfig:
    return EvaluateConfig(
        split="val", protocols=("coco", "voc07", "mega_vid", "ilsvrc"), num_pictures=2, resamples=20
    )


def test_without_detections_all_files_are_there_and_nothing_is_found(
    annotations: VideoAnnotations, prepared_dir: Path, tmp_path: Path, config: EvaluateConfig
) -> None:
    store = FrameStore(prepared_dir / "frames")
    metrics = write_results(tmp_path / "evaluated", annotations, [], store, config, title="Nothing")
    assert {path.name for path in (tmp_path / "evaluated").iterdir()} == FILES
    assert metrics["coco.AP50"] == metrics["voc07.AP50"] == 0.0
    assert metrics["errors.missed.count"] == len(annotations.annotations)


def test_perfect_detections_score_one_by_every_protocol(
    annotations: VideoAnnotations, prepared_dir: Path, tmp_path: Path, config: EvaluateConfig
) -> None:
    records = [
        DetectionRecord(video, frame_id, entry.bbox, 0.9, "drone")
        for video in annotations.images_by_video
        for frame_id in annotations.frame_ids(video)
        for entry in annotations.objects(video, frame_id)
    ]
    metrics = write_results(
        tmp_path, annotations, records, FrameStore(prepared_dir / "frames"), config, title="All"
    )
    for figure in ("coco.AP", "voc07.AP50", "mega_vid.AP50", "ilsvrc.AP"):
        assert metrics[figure] == pytest.approx(1.0)
    assert load_detections(tmp_path / "detections.json") == records
    written = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert (written["coco"]["split"], written["coco"]["num_videos"]) == ("val", 2)
    assert written["coco"]["AP50_interval"] == pytest.approx([1.0, 1.0])
