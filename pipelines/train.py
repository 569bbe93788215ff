"""Stage train: data/prepared/NAME -> artifacts/trained.

`LSTFE_NPROC=2` trains in two processes of this machine (torchrun; without it, in one a visible GPU); started by
torchrun, this is one of them. Exit codes: pipelines/command.py.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from lstfe.config import Config
from lstfe.data.prepared import load_split, split_path
from lstfe.evaluation.inference import score_split
from lstfe.evaluation.protocols import flatten_scores
from lstfe.model.detector import LSTFENet
from lstfe.model.methods import resolve_method
from lstfe.params import load_config
from lstfe.training.distributed import current_world
from lstfe.training.loop import Validate
from lstfe.training.loop import train as train_model
from pipelines.command import run_command
from pipelines.identity import code_md5, prepared_md5, train_key
from pipelines.launch import launch_processes, micro_batch, processes_to_train
from pipelines.mlflow_runs import result_tags
from pipelines.paths import PARAMS, PREPARED, TRAINED, work_dir
from pipelines.tables import FIGURES
from pipelines.tracking import training_run
from pipelines.trained_model import save_trained


def train() -> None:
    """Train, or go on with a training of the same parameters, data and code that was interrupted."""
    config = resolve_method(load_config(PARAMS))
    launch_processes("pipelines.train", lambda: processes_to_train(config.train.batch_size))
    prepared = PREPARED / config.data.name
    data_md5 = prepared_md5(config.data.name)
    key = train_key(config, data_md5=data_md5, code_md5=code_md5("train"))
    state_dir = work_dir() / "checkpoints" / key
    train_on = partial(
        train_model, config, prepared_dir=prepared, checkpoint_dir=state_dir, micro_batch=micro_batch()
    )
    if not current_world().is_main:
        train_on(log=lambda metrics, iteration: None, validate=None)
        return
    with training_run(config, train_key=key, state_dir=state_dir, data_md5=data_md5) as run:
        trained = train_on(log=run.log, validate=_validation(config, prepared))
    # After the run has ended: where MLflow was down, its id may be known only by now.
    record = {"run_id": run.id, "train_key": key, "data_md5": data_md5}
    save_trained(
        trained.model,
        config,
        label_names=trained.label_names,
        history=trained.history,
        record=record | {"seed": config.train.seed, "machine": trained.machine},
        journal=run.journal,
    )
    run.set_tags(result_tags(TRAINED))
    shutil.rmtree(state_dir)


def _validation(config: Config, prepared: Path) -> Validate | None:
    """Return what scores the val split, where there is one; the numbers are for people and never steer the training."""
    if config.train.validation_frames == 0 or not split_path(prepared, "val").is_file():
        return None
    annotations, store = load_split(prepared, "val")

    def validate(model: LSTFENet, iteration: int) -> dict[str, float]:
        max_frames = config.train.validation_frames
        scores = score_split(model, config, annotations, store, split="val", max_frames=max_frames)
        return {f"val.{name}": value for name, value in flatten_scores(scores).items() if name in FIGURES}

    return validate


if __name__ == "__main__":
    run_command(train)
