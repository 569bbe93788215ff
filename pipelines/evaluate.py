"""Stage evaluate: artifacts/trained -> artifacts/evaluated, the scores and what is behind them."""

from __future__ import annotations

import logging
import shutil
from typing import Any

from lstfe.config import Config, EvaluateConfig
from lstfe.data.prepared import load_split
from lstfe.evaluation.bootstrap import add_intervals
from lstfe.evaluation.confusion import write_confusion
from lstfe.evaluation.curves import write_curves
from lstfe.evaluation.errors import ErrorBreakdown, break_down
from lstfe.evaluation.misses import write_misses
from lstfe.evaluation.protocols import score_frames
from lstfe.evaluation.records import ScoredFrames, save_detections, scored_frames
from lstfe.evaluation.report.page import write_report
from lstfe.evaluation.report.pictures import Footage
from lstfe.evaluation.sharding import detect_in_shards
from lstfe.evaluation.summary import summary_metrics
from lstfe.training.distributed import current_world
from pipelines.command import run_command
from pipelines.identity import code_md5, detection_key, files_md5, prepared_md5
from pipelines.launch import launch_processes
from pipelines.paths import EVALUATED, PREPARED, work_dir
from pipelines.tables import FIGURES, read_scores, score_row, text_table
from pipelines.tracking import continue_run
from pipelines.trained import RUN, WEIGHTS, write_json
from pipelines.trained_model import load_trained

logger = logging.getLogger("pipelines.evaluate")


def evaluate() -> None:
    """Stream a split through the trained detector, score it, and show where it fails."""
    launch_processes("pipelines.evaluate")
    model, config = load_trained()
    prepared, wanted = PREPARED / config.data.name, config.evaluate
    annotations, store = load_split(prepared, wanted.split)
    state_dir = work_dir() / "detections" / _detection_key(config)
    records = detect_in_shards(model, config, annotations, store, state_dir=state_dir, progress=_show)
    if records is None:
        return  # rank 0 has all of them
    EVALUATED.mkdir(parents=True, exist_ok=True)
    with continue_run(RUN, stage="evaluate") as run:
        run.log_data_set(config.data.name, prepared_md5(config.data.name), split=wanted.split)
        save_detections(records, EVALUATED / "detections.json")
        stride, num_pictures = wanted.frame_stride, wanted.num_pictures
        scored = scored_frames(annotations, records, frame_stride=stride)
        scores, errors = _score(scored, wanted)
        title = f"Evaluation of {config.model.method} on {config.data.name}"
        footage = Footage(annotations, records, store, num_pictures, stride)
        write_report(EVALUATED / "report.html", scored, scores, title=title, footage=footage)
        write_curves(annotations, records, wanted.protocols, EVALUATED / "plots", frame_stride=stride)
        write_confusion(scored, EVALUATED / "plots")
        pictures = EVALUATED / "pictures"
        write_misses(annotations, records, store, pictures, num_pictures=num_pictures, frame_stride=stride)
        run.log_summary(summary_metrics(scores, errors))
        run.log_folder(EVALUATED, "evaluated")
    shutil.rmtree(state_dir)
    logger.info("%s", text_table(FIGURES, [score_row(read_scores(EVALUATED / "metrics.json"))]))


def _score(scored: ScoredFrames, wanted: EvaluateConfig) -> tuple[dict[str, dict[str, Any]], ErrorBreakdown]:
    """Score, write metrics.json and errors.json, and return what is in them."""
    scores = score_frames(scored, wanted.protocols, frame_stride=wanted.frame_stride, split=wanted.split)
    scores = add_intervals(scores, scored, resamples=wanted.resamples, seed=wanted.seed)
    errors = break_down(scored)
    write_json(EVALUATED / "metrics.json", scores)
    write_json(EVALUATED / "errors.json", errors.to_json())
    return scores, errors


def _detection_key(config: Config) -> str:
    return detection_key(
        config,
        device=current_world().device.type,
        weights_md5=files_md5([WEIGHTS]),
        data_md5=prepared_md5(config.data.name),
        code_md5=code_md5("evaluate"),
    )


def _show(done: int, total: int) -> None:
    if done % 60 == 0 or done == total:
        logger.info("frame %d/%d", done, total)


if __name__ == "__main__":
    run_command(evaluate)
