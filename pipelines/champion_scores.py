"""A bundle's detections on a prepared split, as the stage evaluate makes a challenger's: `LSTFE_BUNDLE` names it.

`python -m pipelines.champion_scores` writes `.work/champion/detections.json`. As in evaluate, LSTFE_NPROC and the
machine say how many processes share the videos.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil

from deploy.bundle import open_bundle
from lstfe.data.prepared import load_split
from lstfe.evaluation.records import save_detections
from lstfe.evaluation.sharding import detect_in_shards
from lstfe.params import load_config
from lstfe.whole_files import new_file
from pipelines.command import run_command
from pipelines.launch import launch_processes, processes_to_detect
from pipelines.paths import CHAMPION_DETECTIONS, PARAMS, PREPARED

BUNDLE = "LSTFE_BUNDLE"
"""Environment variable: the bundle; torchrun hands it on, which arguments would not survive."""

logger = logging.getLogger("pipelines.champion_scores")


def champion_scores() -> None:
    """Stream the evaluated split of params.yaml through the bundle's network, with the bundle's own windows."""
    current = load_config(PARAMS)
    bundle = open_bundle(os.environ[BUNDLE])
    annotations, store = load_split(
        PREPARED / current.data.name, current.evaluate.split, label_names=bundle.label_names
    )
    num_videos, num_frames = len(annotations.images_by_video), len(annotations.images)
    threads = current.evaluate.num_threads
    launch_processes(
        "pipelines.champion_scores", lambda: processes_to_detect(num_videos, num_frames, num_threads=threads)
    )
    from deploy.network import load_network

    config = dataclasses.replace(bundle.config, evaluate=current.evaluate)
    state_dir = CHAMPION_DETECTIONS.parent / bundle.manifest.model_version
    records = detect_in_shards(
        load_network(bundle), config, annotations, store, state_dir=state_dir, progress=_show
    )
    if records is None:
        return  # rank 0 has all of them
    with new_file(CHAMPION_DETECTIONS) as partial:
        save_detections(records, partial)
    shutil.rmtree(state_dir)


def _show(done: int, total: int) -> None:
    if done % 60 == 0 or done == total:
        logger.info("frame %d/%d", done, total)


if __name__ == "__main__":
    run_command(champion_scores)
