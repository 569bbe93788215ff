"""Stage evaluate: artifacts/trained -> artifacts/evaluated, the scores and what is behind them."""

from __future__ import annotations

import logging

from lstfe.data.prepared import load_split
from lstfe.evaluation.bootstrap import add_intervals
from lstfe.evaluation.curves import write_curves
from lstfe.evaluation.inference import detect_split
from lstfe.evaluation.misses import write_misses
from lstfe.evaluation.protocols import flatten_scores, score
from lstfe.evaluation.records import save_detections, scored_frames
from lstfe.training.distributed import current_world
from pipelines.command import run_command
from pipelines.paths import EVALUATED, PREPARED
from pipelines.tables import FIGURES, read_scores, score_row, text_table
from pipelines.tracking import continue_run
from pipelines.trained import RUN, write_json
from pipelines.trained_model import load_trained

logger = logging.getLogger("pipelines.evaluate")


def evaluate() -> None:
    """Stream a split through the trained detector, score it, and picture the worst misses."""
    model, config = load_trained()
    model.to(current_world().device)
    prepared, wanted = PREPARED / config.data.name, config.evaluate
    annotations, store = load_split(prepared, wanted.split)
    with continue_run(RUN, stage="evaluate") as run:
        records = detect_split(model, config, prepared, wanted.split, progress=_show)
        stride = wanted.frame_stride
        scores = score(annotations, records, wanted.protocols, frame_stride=stride, split=wanted.split)
        scored = scored_frames(annotations, records, frame_stride=stride)
        scores = add_intervals(scores, scored, resamples=wanted.resamples, seed=wanted.seed)
        EVALUATED.mkdir(parents=True, exist_ok=True)
        write_json(EVALUATED / "metrics.json", scores)
        save_detections(records, EVALUATED / "detections.json")
        plots = EVALUATED / "plots"
        curves = write_curves(annotations, records, wanted.protocols, plots, frame_stride=stride)
        pictures = write_misses(
            annotations,
            records,
            store,
            EVALUATED / "pictures",
            num_pictures=wanted.num_pictures,
            frame_stride=stride,
        )
        run.log_summary(flatten_scores(scores))
        run.log_files([EVALUATED / "metrics.json", *curves], "evaluated")
        run.log_files(pictures, "evaluated/pictures")
    logger.info("%s", text_table(FIGURES, [score_row(read_scores(EVALUATED / "metrics.json"))]))


def _show(done: int, total: int) -> None:
    if done % 60 == 0 or done == total:
        logger.info("frame %d/%d", done, total)


if __name__ == "__main__":
    run_command(evaluate)
