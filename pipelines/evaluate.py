"""Stage evaluate: artifacts/trained -> artifacts/evaluated, the scores and what is behind them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lstfe.config import EvaluateConfig
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.prepared import load_split
from lstfe.evaluation.bootstrap import add_intervals
from lstfe.evaluation.confusion import write_confusion
from lstfe.evaluation.curves import write_curves
from lstfe.evaluation.errors import break_down
from lstfe.evaluation.inference import detect_split
from lstfe.evaluation.misses import write_misses
from lstfe.evaluation.protocols import flatten_scores, score
from lstfe.evaluation.records import DetectionRecord, save_detections, scored_frames
from lstfe.evaluation.report.page import write_report
from lstfe.training.distributed import current_world
from pipelines.command import run_command
from pipelines.paths import EVALUATED, PREPARED
from pipelines.tables import FIGURES, read_scores, score_row, text_table
from pipelines.tracking import continue_run
from pipelines.trained import RUN, write_json
from pipelines.trained_model import load_trained

logger = logging.getLogger("pipelines.evaluate")


def evaluate() -> None:
    """Stream a split through the trained detector, score it, and show where it fails."""
    model, config = load_trained()
    model.to(current_world().device)
    prepared, wanted = PREPARED / config.data.name, config.evaluate
    annotations, store = load_split(prepared, wanted.split)
    EVALUATED.mkdir(parents=True, exist_ok=True)
    with continue_run(RUN, stage="evaluate") as run:
        records = detect_split(model, config, prepared, wanted.split, progress=_show)
        save_detections(records, EVALUATED / "detections.json")
        scores, tables = _score(annotations, records, wanted)
        pictured = {"num_pictures": wanted.num_pictures, "frame_stride": wanted.frame_stride}
        pictures = write_misses(annotations, records, store, EVALUATED / "pictures", **pictured)
        title = f"Evaluation of {config.model.method} on {config.data.name}"
        report = write_report(
            EVALUATED / "report.html", annotations, records, scores, store=store, title=title, **pictured
        )
        run.log_summary(flatten_scores(scores))
        run.log_files([*tables, report, EVALUATED / "detections.json"], "evaluated")
        run.log_files(pictures, "evaluated/pictures")
    logger.info("%s", text_table(FIGURES, [score_row(read_scores(EVALUATED / "metrics.json"))]))


def _score(
    annotations: VideoAnnotations, records: Sequence[DetectionRecord], wanted: EvaluateConfig
) -> tuple[dict[str, dict[str, Any]], list[Path]]:
    """Return the scores, and the files of numbers and curves that were written."""
    stride = wanted.frame_stride
    scored = scored_frames(annotations, records, frame_stride=stride)
    scores = score(annotations, records, wanted.protocols, frame_stride=stride, split=wanted.split)
    scores = add_intervals(scores, scored, resamples=wanted.resamples, seed=wanted.seed)
    write_json(EVALUATED / "metrics.json", scores)
    write_json(EVALUATED / "errors.json", break_down(scored).to_json())
    curves = write_curves(annotations, records, wanted.protocols, EVALUATED / "plots", frame_stride=stride)
    confusion = write_confusion(scored, EVALUATED / "plots")
    return scores, [EVALUATED / "metrics.json", EVALUATED / "errors.json", *curves, *confusion]


def _show(done: int, total: int) -> None:
    if done % 60 == 0 or done == total:
        logger.info("frame %d/%d", done, total)


if __name__ == "__main__":
    run_command(evaluate)
