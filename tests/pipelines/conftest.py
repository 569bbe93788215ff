"""Temporary projects, and the two servers that are slow to make: each once a session."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import MakeOnce

ROOT = Path(__file__).parents[2]
_SETTINGS = ("DVC_", "LSTFE_", "MLFLOW_", "PREFECT_")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the machine sets for these tools; what a test's code sets is undone after it."""
    for name in list(os.environ):
        if name.startswith(_SETTINGS) and name != "PREFECT_API_URL":
            monkeypatch.delenv(name)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_HOME", "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # so that monkeypatch puts back whatever the code under test sets
        monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project (a dvc.yaml without stages), which is also the current folder."""
    folder = tmp_path / "project"
    shutil.copytree(
        ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local")
    )
    shutil.copy(ROOT / ".dvcignore", folder)
    folder.joinpath("dvc.yaml").write_text("stages: {}\n")
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def toy(project: Path) -> Path:
    """A project of three stages in a row; `c` fails while a file `broken` exists."""
    project.joinpath("dvc.yaml").write_text(
        """
stages:
  c: {cmd: 'test ! -e broken && cat b.txt > c.txt', deps: [b.txt], outs: [c.txt]}
  b: {cmd: 'cat a.txt > b.txt', deps: [a.txt], outs: [b.txt]}
  a: {cmd: 'echo ${word} > a.txt', outs: [a.txt]}
"""
    )
    project.joinpath("params.yaml").write_text("word: one\n")
    return project


@pytest.fixture(scope="session")
def mlflow_template(make_once: MakeOnce) -> Path:
    """A migrated, empty MLflow store: making one takes seconds, copying it does not."""

    def write(folder: Path) -> None:
        folder.mkdir()
        code = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{folder}/mlflow.db').search_experiments()"
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)

    return make_once("mlflow", write) / "mlflow.db"


@pytest.fixture
def mlflow_store(project: Path, mlflow_template: Path) -> Path:
    """The project's own MLflow store, ready for use."""
    path = project / ".work" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(mlflow_template, path)
    return path


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server of its own; every use of Prefect must ask for it before it imports prefect."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "true")
        from prefect.testing.utilities import prefect_test_harness

        # The default of 30 seconds is too short for a busy machine.
        with prefect_test_harness(server_startup_timeout=120):
            yield
