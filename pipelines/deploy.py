"""Stage deploy: artifacts/exported -> artifacts/deployed, the bundle that leaves the project."""

from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path

import deploy as deploy_package
import lstfe
from deploy import mlflow_model
from deploy.bundle import MANIFEST_FILE, write_bundle
from pipelines.command import run_command
from pipelines.identity import current_commit
from pipelines.paths import DEPLOYED, EXPORTED
from pipelines.tracked_model import BUNDLE_VERSION, ModelFiles
from pipelines.tracking import continue_run
from pipelines.trained import RUN, WEIGHTS, load_config_as_trained, load_label_names, load_record

logger = logging.getLogger("pipelines.deploy")


def deploy() -> None:
    """Collect graphs, weights, configuration and label names in one folder, with a hash of each."""
    with continue_run(RUN, stage="deploy") as run:
        bundle = write_bundle(
            DEPLOYED,
            config=load_config_as_trained(),
            label_names=load_label_names(),
            weights=WEIGHTS,
            graphs_dir=EXPORTED,
            created_from=current_commit() or "unknown",
            run_id=load_record()["run_id"],
        )
        run.set_tags({BUNDLE_VERSION: bundle.manifest.model_version})
        run.log_files([DEPLOYED / MANIFEST_FILE], "deployed")
        run.log_model(_model_files(bundle.manifest.model_version))
    logger.info("deployed %s, version %s", DEPLOYED, bundle.manifest.model_version)


def _model_files(bundle_version: str) -> ModelFiles:
    packages = ("numpy", "onnxruntime", "pandas", "pydantic", "ruamel.yaml")
    return ModelFiles(
        data=DEPLOYED,
        version=bundle_version,
        loader_module=mlflow_model.__name__,
        code=(Path(deploy_package.__path__[0]), Path(lstfe.__path__[0])),
        requirements=tuple(f"{package}=={version(package)}" for package in packages),
        input_name=mlflow_model.INPUT_NAME,
        input_type=mlflow_model.INPUT_TYPE,
        input_shape=mlflow_model.INPUT_SHAPE,
        columns=mlflow_model.COLUMNS,
    )


if __name__ == "__main__":
    run_command(deploy)
