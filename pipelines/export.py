"""Stage export: artifacts/trained -> artifacts/exported, ONNX graphs that agree with PyTorch."""

from __future__ import annotations

import logging

from deploy.export_onnx import export_graphs
from deploy.parity import check_parity
from pipelines.command import run_command
from pipelines.paths import EXPORTED, PREPARED
from pipelines.tracking import continue_run
from pipelines.trained import RUN, load_label_names
from pipelines.trained_model import load_trained

logger = logging.getLogger("pipelines.export")


def export() -> None:
    """Write the graphs and measure, on random and on real frames, how far they are from PyTorch."""
    model, config = load_trained()
    with continue_run(RUN, stage="export") as run:
        export_graphs(model, config, EXPORTED)
        prepared = PREPARED / config.data.name
        check_parity(model, config, EXPORTED, prepared_dir=prepared, label_names=load_label_names())
        run.log_files([EXPORTED / "parity.json"], "exported")
    logger.info("exported %s, each graph within export.max_difference of PyTorch", EXPORTED)


if __name__ == "__main__":
    run_command(export)
