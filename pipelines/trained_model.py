"""artifacts/trained: written by the stage train, read by the stages that run the model."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lstfe.config import Config
from lstfe.model.detector import LSTFENet
from lstfe.params import save_config
from lstfe.training.checkpoint import load_weights, save_weights
from pipelines import trained
from pipelines.paths import TRAINED

History = Sequence[Mapping[str, float]]


def save_trained(
    model: LSTFENet,
    config: Config,
    *,
    label_names: list[str],
    history: History,
    record: Mapping[str, Any],
    journal: Path,
) -> None:
    """Write weights, configuration, label names, metrics and curves; `record` names the MLflow run."""
    TRAINED.mkdir(parents=True, exist_ok=True)
    save_weights(model, trained.WEIGHTS)
    save_config(config, trained.CONFIG)
    trained.write_json(trained.LABELS, label_names)
    trained.write_json(trained.RUN, record)
    trained.write_json(trained.METRICS, last_metrics(history))
    shutil.copyfile(journal, trained.HISTORY)
    _write_losses(history)


def load_trained() -> tuple[LSTFENet, Config]:
    """Return the model, in evaluation mode on the CPU, and the configuration to use it by; or UserError."""
    config = trained.load_config_as_trained()
    num_classes = len(trained.load_label_names()) + 1
    model = LSTFENet(config.model, num_classes=num_classes, pretrained=False)
    load_weights(model, trained.WEIGHTS)
    return model.eval(), config


def last_metrics(history: History) -> dict[str, float]:
    """Return each metric's last value, but for those that tell of the machine's speed."""
    from lstfe.training.interval import SPEEDS  # here: the stages that only load a model do not depend on it

    last: dict[str, float] = {}
    for entry in history:
        last |= entry
    return {name: value for name, value in last.items() if name not in SPEEDS}


def _write_losses(history: History) -> None:
    """Write the lines that hold losses as a table, for `dvc plots`."""
    lines = [entry for entry in history if "loss" in entry]
    columns = ["iteration", *sorted(name for name in lines[-1] if name.startswith("loss"))]
    with trained.LOSSES.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
