"""A tracker that is not there costs a warning: training runs on, and its metrics arrive when it is back."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
from torch import Tensor

from lstfe.config import Config
from lstfe.training.loop import train
from pipelines.tracking import training_run

from .conftest import ITERATIONS

NOBODY = "http://127.0.0.1:9"


@pytest.mark.slow
def test_a_training_without_its_tracker_ends_with_the_same_bits_and_is_told_of_later(
    config: Config,
    weights_of_one_process: dict[str, Tensor],
    tiny_prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from mlflow import MlflowClient

    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", NOBODY)
    state = tmp_path / "state"
    arguments = {"prepared_dir": tiny_prepared, "validate": None, "progress": False}
    identity = {"train_key": "key", "state_dir": state, "data_md5": "0" * 32}

    with caplog.at_level(logging.WARNING), training_run(config, **identity) as run:
        found = train(config, checkpoint_dir=state, log=run.log, **arguments)
    assert run.id is None
    assert sum("MLflow is not there" in message for message in caplog.messages) == 1
    state_dict = found.model.state_dict()
    assert all(tensor.equal(state_dict[name]) for name, tensor in weights_of_one_process.items())

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with training_run(config, **identity) as run:
        train(config, checkpoint_dir=state, log=run.log, **arguments)  # has ended: nothing is repeated
    assert run.id is not None
    points = MlflowClient(uri).get_metric_history(run.id, "loss")
    assert [point.step for point in points] == list(range(1, ITERATIONS + 1))
    shutil.rmtree(state)
