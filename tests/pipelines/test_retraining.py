"""When a retraining has something to do, that it is alone, and what is left after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipelines import isolated_tree, registry
from pipelines.lock import Busy, hold_lock
from pipelines.retraining import Plan, make_plan, retrain_project

ROOT = Path(__file__).parents[2]
_AUTHOR = {f"GIT_{role}_{part}": "nobody" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}


@pytest.fixture
def mine(project: Path, mlflow_store: Path) -> Path:
    """A committed project whose data set `clips` is one file."""
    text = (ROOT / "params.yaml").read_text().replace("name: embedded", "name: clips")
    (project / "params.yaml").write_text(text.replace("settle_seconds: 60.0", "settle_seconds: 0.0"))
    (project / ".gitignore").write_text("/.work/\n/data/\n")
    folder = project / "data" / "raw" / "clips" / "annotations"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text("{}")
    _commit(project)
    return project


def _commit(folder: Path) -> None:
    for command in (["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True, env=os.environ | _AUTHOR)


def _plan(root: Path, *, force: bool = False) -> Plan:
    plan = make_plan(root, force=force)
    assert isinstance(plan, Plan), plan
    return plan


def _finish(root: Path, plan: Plan) -> None:
    path = root / ".work" / "retrain" / "finished.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    finished = {"digest": plan.digest, "data_name": "clips", "commit": plan.commit}
    path.write_text(json.dumps({**finished, "time": "yesterday", "message": "version 1 was refused"}))


def _champion(root: Path) -> None:
    path = registry.champion_pointer(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1", "bundle": str(root), "run_id": "r", "promoted_at": "now"}))


def test_the_first_plan_has_no_champion_and_the_same_inputs_give_the_same_tree(mine: Path) -> None:
    plan = _plan(mine)

    assert (plan.data_name, plan.champion) == ("clips", None)
    assert plan.branch == f"retrain/{plan.tree_name}"
    assert _plan(mine) == plan


def test_what_was_finished_is_nothing_new_until_the_data_changes(mine: Path) -> None:
    first = _plan(mine)
    _champion(mine)
    _finish(mine, first)

    found = make_plan(mine)
    assert found == ("nothing new: clips has not changed since yesterday, when version 1 was refused")

    (mine / "data" / "raw" / "clips" / "annotations" / "new.json").write_text("{}")
    assert _plan(mine).tree_name != first.tree_name


def test_a_new_commit_alone_trains_only_while_there_is_no_champion(mine: Path) -> None:
    _finish(mine, _plan(mine))
    assert isinstance(make_plan(mine), str)
    (mine / "README").write_text("new")
    _commit(mine)

    assert isinstance(make_plan(mine), Plan)
    _champion(mine)
    assert isinstance(make_plan(mine), str)


def test_force_trains_anyway_each_time_in_a_tree_of_its_own(mine: Path) -> None:
    first = _plan(mine)
    _champion(mine)
    _finish(mine, first)

    assert _plan(mine, force=True).tree_name != first.tree_name


def test_data_that_is_still_being_copied_waits_for_the_next_run(mine: Path) -> None:
    text = (mine / "params.yaml").read_text()
    (mine / "params.yaml").write_text(text.replace("settle_seconds: 0.0", "settle_seconds: 3600.0"))

    assert str(make_plan(mine)).startswith("nothing new yet: clips was changed less than 3600 seconds ago")


def test_unfinished_edits_of_the_training_parameters_do_not_count(mine: Path) -> None:
    plan = _plan(mine)
    text = (mine / "params.yaml").read_text()
    (mine / "params.yaml").write_text(text.replace("name: clips", "name: unfinished"))

    assert _plan(mine).data_name == "clips"
    assert _plan(mine).tree_name == plan.tree_name


def test_two_at_once_are_one_and_a_message_who_that_is(mine: Path) -> None:
    with (
        hold_lock(mine / ".work" / "retrain" / "lock", what="a test"),
        pytest.raises(
            Busy, match=f"a retraining of this project is running already \\(process {os.getpid()}"
        ),
    ):
        retrain_project(mine, report=_quiet)


def test_without_new_data_nothing_is_run_and_what_a_kill_left_is_cleared_away(mine: Path) -> None:
    _finish(mine, _plan(mine))
    left = isolated_tree.tree_path(mine, "0123456789")
    left.mkdir(parents=True)
    steps: list[str] = []

    def step(name: str, action: Any) -> Any:
        steps.append(name)
        return action()

    outcome = retrain_project(mine, step=step, report=_quiet)

    assert outcome.action == "nothing new"
    assert steps == ["look for new data"]
    assert not left.exists()


class _Killed(BaseException):
    """What SIGKILL would be, if a process could live to see it."""


@pytest.mark.parametrize("killed_in", ["promote", "close_tree"])
def test_a_decision_is_carried_out_by_the_next_run_if_a_kill_came_first(
    mine: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    plan = _plan(mine)
    finished = {
        "digest": plan.digest,
        "data_name": "clips",
        "commit": plan.commit,
        "time": "now",
        "message": "m",
    }
    pending = {
        "promote": True,
        "version": "1",
        "summary": "s",
        "tree_name": plan.tree_name,
        "finished": finished,
    }
    (mine / ".work" / "retrain").mkdir(exist_ok=True)
    (mine / ".work" / "retrain" / "pending.json").write_text(json.dumps(pending))
    promoted: list[str] = []

    def promote(version: str, root: Path, *, reason: str) -> registry.Champion:
        promoted.append(version)
        return registry.Champion(version=version, bundle="b", run_id="r", promoted_at="now")

    def kill(*arguments: object, **keywords: object) -> None:
        raise _Killed

    monkeypatch.setattr(registry, "promote", promote)
    with monkeypatch.context() as patch:
        patch.setattr(registry if killed_in == "promote" else isolated_tree, killed_in, kill)
        with pytest.raises(_Killed):
            retrain_project(mine, report=_quiet)

    outcome = retrain_project(mine, report=_quiet)

    assert promoted[-1] == "1"
    assert outcome.action == "nothing new"
    assert not (mine / ".work" / "retrain" / "pending.json").exists()


def test_a_project_without_a_commit_is_told_what_is_missing(project: Path) -> None:
    shutil.copy(ROOT / "params.yaml", project)

    with pytest.raises(Exception, match="git has no commit here to start from"):
        retrain_project(project, report=_quiet)


def _quiet(line: str) -> None:
    pass
