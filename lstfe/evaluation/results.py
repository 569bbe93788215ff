"""What an evaluation leaves behind: scores, errors, curves, the report and pictures of the worst misses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lstfe.config import EvaluateConfig
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.evaluation.bootstrap import add_intervals
from lstfe.evaluation.confusion import write_confusion
from lstfe.evaluation.curves import write_curves
from lstfe.evaluation.errors import break_down
from lstfe.evaluation.misses import write_misses
from lstfe.evaluation.protocols import score_frames
from lstfe.evaluation.records import DetectionRecord, save_detections, scored_frames
from lstfe.evaluation.report.page import write_report
from lstfe.evaluation.report.pictures import Footage
from lstfe.evaluation.summary import summary_metrics


def write_results(
    destination: Path,
    annotations: VideoAnnotations,
    records: Sequence[DetectionRecord],
    store: FrameStore,
    config: EvaluateConfig,
    *,
    title: str,
) -> dict[str, float]:
    """Score detections and write all of it into `destination`; return the `summary_metrics`.

    Files: metrics.json, errors.json, detections.json, report.html, plots/, pictures/.
    """
    destination.mkdir(parents=True, exist_ok=True)
    save_detections(records, destination / "detections.json")
    stride, num_pictures = config.frame_stride, config.num_pictures
    scored = scored_frames(annotations, records, frame_stride=stride)
    scores = score_frames(scored, config.protocols, frame_stride=stride, split=config.split)
    scores = add_intervals(scores, scored, resamples=config.resamples, seed=config.seed)
    errors = break_down(scored)
    _write_json(destination / "metrics.json", scores)
    _write_json(destination / "errors.json", errors.to_json())
    footage = Footage(annotations, records, store, num_pictures, stride)
    write_report(destination / "report.html", scored, scores, title=title, footage=footage)
    plots, pictures = destination / "plots", destination / "pictures"
    write_curves(annotations, records, config.protocols, plots, frame_stride=stride)
    write_confusion(scored, plots)
    write_misses(annotations, records, store, pictures, num_pictures=num_pictures, frame_stride=stride)
    return summary_metrics(scores, errors)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
