"""artifacts/trained: the names of what training leaves behind, and the configuration to use it by."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from lstfe.config import Config
from lstfe.model.methods import resolve_method
from lstfe.params import load_config
from pipelines.paths import PARAMS, TRAINED

WEIGHTS = TRAINED / "weights.safetensors"
CONFIG = TRAINED / "config.yaml"
LABELS = TRAINED / "labels.json"
RUN = TRAINED / "run.json"
METRICS = TRAINED / "metrics.json"
HISTORY = TRAINED / "history.jsonl"
LOSSES = TRAINED / "losses.csv"


def load_config_as_trained() -> Config:
    """Return params.yaml with the model, and the clips that decide on its parts, as they were trained."""
    trained = load_config(CONFIG)
    current = load_config(PARAMS)
    return resolve_method(dataclasses.replace(current, model=trained.model, sampling=trained.sampling))


def load_label_names() -> list[str]:
    """Return the category names; that of `label` is at `label - 1`."""
    return [str(name) for name in read_json(LABELS)]


def load_record() -> dict[str, Any]:
    """Return what ties the weights to their run: run_id (null where MLflow was down), train_key, data_md5."""
    return dict(read_json(RUN))


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON that people can read."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
