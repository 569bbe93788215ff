"""Stage prepare: data/raw/NAME -> data/prepared/NAME, frames that can be read one by one."""

from __future__ import annotations

import logging

from lstfe.data.prepare import prepare_data_set
from lstfe.params import load_config
from pipelines.command import run_command
from pipelines.paths import PARAMS, PREPARED, RAW

logger = logging.getLogger("pipelines.prepare")


def prepare() -> None:
    """Decode the videos and settle the annotations of the data set that params.yaml names."""
    config = load_config(PARAMS)
    name = config.data.name
    prepare_data_set(RAW / name, PREPARED / name, config.prepare, report_progress=_show)
    logger.info("prepared %s, see its report.json", PREPARED / name)


def _show(done: int, total: int, video: str) -> None:
    logger.info("video %d/%d  %s", done, total, video)


if __name__ == "__main__":
    run_command(prepare)
