"""Stage evaluate: artifacts/trained -> artifacts/evaluated, the scores and what is behind them."""

from __future__ import annotations

import logging
import shutil

from lstfe.config import Config
from lstfe.data.prepared import load_split
from lstfe.evaluation.results import write_results
from lstfe.evaluation.sharding import detect_in_shards
from lstfe.training.distributed import current_world
from pipelines.command import run_command
from pipelines.identity import code_md5, detection_key, files_md5, prepared_md5
from pipelines.launch import launch_processes, processes_to_detect
from pipelines.paths import EVALUATED, PREPARED, work_dir
from pipelines.tables import FIGURES, read_scores, score_row, text_table
from pipelines.tracking import continue_run
from pipelines.trained import RUN, WEIGHTS, load_config_as_trained, load_label_names
from pipelines.trained_model import load_trained

logger = logging.getLogger("pipelines.evaluate")


def evaluate() -> None:
    """Stream a split through the trained detector, score it, and show where it fails."""
    config = load_config_as_trained()
    prepared, wanted = PREPARED / config.data.name, config.evaluate
    annotations, store = load_split(prepared, wanted.split, label_names=load_label_names())
    num_videos, num_frames = len(annotations.images_by_video), len(annotations.images)
    launch_processes(
        "pipelines.evaluate",
        lambda: processes_to_detect(num_videos, num_frames, num_threads=wanted.num_threads),
    )
    model, config = load_trained()
    state_dir = work_dir() / "detections" / _detection_key(config)
    records = detect_in_shards(model, config, annotations, store, state_dir=state_dir, progress=_show)
    if records is None:
        return  # rank 0 has all of them
    title = f"Evaluation of {config.model.method} on {config.data.name}"
    with continue_run(RUN, stage="evaluate") as run:
        run.log_data_set(config.data.name, prepared_md5(config.data.name), split=wanted.split)
        run.log_summary(write_results(EVALUATED, annotations, records, store, wanted, title=title))
        run.log_folder(EVALUATED, "evaluated")
    shutil.rmtree(state_dir)
    logger.info("%s", text_table(FIGURES, [score_row(read_scores(EVALUATED / "metrics.json"))]))


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
