"""Stage render: seed -> data/raw/embedded, the videos that the demo trains on."""

from __future__ import annotations

import logging

from lstfe.data.rendering.renderer import render_data_set
from lstfe.params import load_config
from pipelines.command import run_command
from pipelines.paths import EMBEDDED, PARAMS, RAW

logger = logging.getLogger("pipelines.render")


def render() -> None:
    """Render the embedded data set, whatever data set the rest of the chain works on."""
    report = render_data_set(load_config(PARAMS).render, RAW / EMBEDDED)
    for split, counts in report["splits"].items():
        logger.info("rendered %s %s: %s", RAW / EMBEDDED, split, counts)


if __name__ == "__main__":
    run_command(render)
