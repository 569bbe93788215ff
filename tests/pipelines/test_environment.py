"""The environment of child processes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from pipelines.environment import apply_default_settings, child_environment


def test_a_childs_python_is_this_interpreter_whatever_path_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    found = shutil.which("python", path=child_environment(tmp_path)["PATH"])

    assert found is not None
    assert Path(found).parent == Path(sys.executable).parent


def test_nothing_is_reported_to_anybody_and_stores_lie_in_the_project(tmp_path: Path) -> None:
    environment = child_environment(tmp_path)

    assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/.work/mlflow.db"
    assert environment["PREFECT_HOME"] == f"{tmp_path}/.prefect"
    assert environment["DO_NOT_TRACK"] == "true"
    assert environment["DVC_NO_ANALYTICS"] == "1"


def test_what_the_user_set_is_left_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")

    apply_default_settings()

    assert os.environ["MLFLOW_TRACKING_URI"] == "http://tracker:5000"
    assert child_environment(project)["MLFLOW_TRACKING_URI"] == "http://tracker:5000"
