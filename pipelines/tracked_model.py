"""A deployed bundle as an MLflow model: what the registry can hold, and any MLflow client can load."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUNDLE_VERSION = "bundle.version"
"""Tag of runs and of registered versions: `model_version` of the bundle's manifest."""
OLD_FOLDER = "model"
"""Of the run's artifacts, where bundles of any version lay: a later `deploy` of the run replaced the earlier one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFiles:
    """What an MLflow model of the flavour `python_function` is made of."""

    data: Path
    version: str
    """Of the bundle in `data`."""
    loader_module: str
    """Has `_load_pyfunc(data)`."""
    code: tuple[Path, ...]
    """Packages that the loader needs and that cannot be installed by name."""
    requirements: tuple[str, ...]
    """Packages that can, `name==version`."""
    input_name: str
    input_type: Any
    """NumPy type."""
    input_shape: tuple[int, ...]
    """-1 = any."""
    columns: Mapping[str, str]
    """Of the table that comes out: name -> MLflow's name of the type."""


def model_folder(version: str) -> str:
    """Return where a run keeps the bundle of a version: `runs:/RUN/model-VERSION` is the model's address."""
    return f"model-{version}"


def log_model(client: Any, run_id: str, model: ModelFiles) -> None:
    """Store a model with its signature in a run; `client` is MLflow's."""
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    frames = TensorSpec(model.input_type, model.input_shape, model.input_name)
    columns: list[ColSpec | TensorSpec] = [ColSpec(kind, name) for name, kind in model.columns.items()]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        pyfunc.save_model(
            path,
            loader_module=model.loader_module,
            data_path=str(model.data),
            code_paths=[str(package) for package in model.code],
            pip_requirements=list(model.requirements),
            signature=ModelSignature(Schema([frames]), Schema(columns)),
        )
        client.log_artifacts(run_id, str(path), model_folder(model.version))
