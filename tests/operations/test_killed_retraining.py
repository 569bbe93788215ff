"""`retrain` itself, killed or robbed of its servers while it trains: it ends as if nothing had happened, or says so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deploy.bundle import open_bundle
from pipelines import isolated_tree
from pipelines.mlflow_runs import RUN_FILE
from pipelines.model_versions import ModelVersions
from pipelines.registry import history, read_champion
from pipelines.servers.lost_runs import RUN_VARIABLE
from pipelines.servers.processes import with_variable
from pipelines.stage import outdated_stages

from ..project_copy import git
from . import small_project
from .conftest import Servers, running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

_UPDATES, _CHECKPOINT_EVERY = 80, 5
_LONG = 1800.0
"""Seconds until a wait gives up: many times what an idle machine needs."""
_CHANGES = {
    "train": {"checkpoint_every": _CHECKPOINT_EVERY, "log_every": _CHECKPOINT_EVERY},
    "retrain": {
        "settle_seconds": 0.0,
        "overrides": {"train.iterations": _UPDATES, "train.still_iterations": 0, "train.lr": 3e-4},
    },
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A small project with its servers up and a first champion."""
    root = small_project.make_project(tmp_path_factory.mktemp("retrained").resolve() / "project", _CHANGES)
    with running(Servers, root, code=root) as project:
        run = project.start_run("retrain/nightly")
        assert project.wait_for_end(run, seconds=_LONG)["state_name"] == "Promoted"
        yield project


def _checkpoints(root: Path) -> list[Path]:
    return list(root.glob(".work/retrain/*/.work/checkpoints/*/*.pt"))


def _kill_prefect(servers: Servers, run: str) -> None:
    servers.kill("prefect")


def _kill_mlflow(servers: Servers, run: str) -> None:
    servers.kill("mlflow")


def _kill_worker(servers: Servers, run: str) -> None:
    servers.kill("worker", is_alone=True)


def _kill_worker_and_run(servers: Servers, run: str) -> None:
    worker = psutil.Process(servers.program("worker").pid)
    for process in (worker, *with_variable(RUN_VARIABLE, run)):
        process.kill()


@pytest.mark.parametrize("deployment", ["evaluate_champion/weekly", "check_data/hourly"])
def test_undisturbed_the_other_schedules_run_through(servers: Servers, deployment: str) -> None:
    end = servers.wait_for_end(servers.start_run(deployment), seconds=_LONG)
    assert end["state_type"] == "COMPLETED", end["state"]


@pytest.mark.parametrize(
    "disturb",
    [_kill_prefect, _kill_mlflow, _kill_worker, _kill_worker_and_run],
    ids=lambda disturb: disturb.__name__.removeprefix("_kill_"),
)
def test_a_retraining_goes_on_to_its_end(servers: Servers, disturb: Callable[[Servers, str], None]) -> None:
    before = len(history(servers.root))
    run = _start_training(servers, disturb.__name__)

    disturb(servers, run)

    end = servers.wait_for_end(run, seconds=_LONG)
    assert end["state_name"] in ("Promoted", "Refused"), end["state"]
    _assert_one_decision(servers.root, before)
    newest = ModelVersions(servers.root).all()[0]
    assert f"runs/{newest.run_id})" in servers.artifact(run, "retraining")


def test_a_killed_retraining_is_reported_and_the_next_one_goes_on_with_its_training(servers: Servers) -> None:
    before = len(history(servers.root))
    run = _start_training(servers, "alone")
    champion = read_champion(servers.root)

    for process in with_variable(RUN_VARIABLE, run):
        process.kill()

    assert servers.wait_for_end(run)["state_type"] == "CRASHED"
    assert read_champion(servers.root) == champion
    assert len(history(servers.root)) == before
    (left,) = {path.parent for path in _checkpoints(servers.root)}
    training = json.loads((left / RUN_FILE).read_text())["run_id"]

    again = servers.start_run("retrain/nightly")

    end = servers.wait_for_end(again, seconds=_LONG)
    assert end["state_name"] in ("Promoted", "Refused"), end["state"]
    _assert_one_decision(servers.root, before)
    assert ModelVersions(servers.root).all()[0].run_id == training


def _start_training(servers: Servers, name: str) -> str:
    """Drop a video, start a retraining, and return its flow run once its training has saved for the first time."""
    small_project.drop_video(servers.root, name, seed=30 + len(name))
    run = servers.start_run("retrain/nightly")
    wait_for(lambda: _checkpoints(servers.root), seconds=_LONG, message="no training has saved")
    return run


def _assert_one_decision(root: Path, before: int) -> None:
    """Check that one challenger more was decided on, whole, and that nothing else is left."""
    assert len(history(root)) == before + 1
    change, champion = history(root)[-1], read_champion(root)
    assert champion is not None
    versions = ModelVersions(root)
    aliases = versions.aliases()
    assert aliases["champion"] == champion.version
    if change.action == "promote":
        assert champion.version == change.version
        assert "challenger" not in aliases
    else:
        assert aliases["challenger"] == change.version
    assert open_bundle(champion.bundle).manifest.files
    assert [int(item.version) for item in versions.all()] == list(range(before + 1, 0, -1))
    _assert_whole_run(root, versions.all()[0].run_id)

    assert isolated_tree.other_trees(root, None) == []
    assert git(root, "status", "--porcelain") == ""
    _assert_reproduced(root, git(root, "branch", "--sort=-committerdate", "--format=%(refname:short)"))


def _assert_whole_run(root: Path, run_id: str) -> None:
    """Check that MLflow knows every point of the training, as without a disturbance."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/.work/mlflow.db")
    steps = [point.step for point in client.get_metric_history(run_id, "loss")]
    assert steps == list(range(_CHECKPOINT_EVERY, _UPDATES + 1, _CHECKPOINT_EVERY))
    assert client.get_run(run_id).info.status == "FINISHED"


def _assert_reproduced(root: Path, branches: str) -> None:
    """Check that DVC finds nothing to do on the newest branch of a retraining."""
    branch = next(name for name in branches.split() if name.startswith("retrain/"))
    tree = root.parent / "seen"
    git(root, "worktree", "add", "--quiet", str(tree), branch)
    try:
        small_project.dvc(tree, "cache", "dir", "--local", str(isolated_tree.cache_dir(root)))
        small_project.dvc(tree, "checkout", "--allow-missing")
        assert outdated_stages(tree) == ["render"], "the embedded data set, which this project has no use for"
    finally:
        git(root, "worktree", "remove", "--force", str(tree))
