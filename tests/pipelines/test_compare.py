"""A comparator as a DVC experiment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lstfe.errors import UserError
from pipelines.command import StageError
from pipelines.compare import require_trained, train_comparator


def _ignore(line: str) -> None:
    """Take a line of output and forget it."""


def _commit(root: Path) -> None:
    identity = {
        f"GIT_{role}_{part}": "nobody" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")
    }
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    subprocess.run(["git", "commit", "--quiet", "-m", "all"], cwd=root, check=True, env=os.environ | identity)


@pytest.fixture
def two_methods(project: Path) -> Path:
    """A project whose only stage writes down its method, under git, with params.yaml on lstfe."""
    project.joinpath("params.yaml").write_text("model: {method: lstfe}\n")
    project.joinpath("dvc.yaml").write_text(
        "stages: {evaluate: {cmd: 'cat params.yaml > scores', params: [model], outs: [scores]}}\n"
    )
    project.joinpath(".gitignore").write_text("/scores\n")
    _commit(project)
    return project


def test_before_any_training_there_is_nothing_to_compare_with(project: Path) -> None:
    with pytest.raises(UserError, match="run `lstfe reproduce` first"):
        require_trained()


def test_without_git_or_without_a_commit_the_message_says_what_to_do(project: Path) -> None:
    with pytest.raises(UserError, match="commit first"):
        train_comparator("faster_rcnn", root=project, report=_ignore)

    shutil.rmtree(project / ".git")
    with pytest.raises(UserError, match="clone the project"):
        train_comparator("faster_rcnn", root=project, report=_ignore)


def test_the_experiment_leaves_the_work_tree_alone_and_replaces_its_predecessor(two_methods: Path) -> None:
    from dvc.repo import Repo

    for _ in range(2):
        lines: list[str] = []
        train_comparator("faster_rcnn", root=two_methods, report=lines.append)

    with Repo(str(two_methods)) as repo:
        (found,) = repo.experiments.ls()[repo.scm.get_rev()]
    assert found[0] == "faster-rcnn"
    assert any("is cached - skipping run" in line for line in lines)
    assert (two_methods / "params.yaml").read_text() == "model: {method: lstfe}\n"
    assert not (two_methods / "scores").exists()


def test_a_failed_comparison_is_one_message(two_methods: Path) -> None:
    two_methods.joinpath("dvc.yaml").write_text("stages: {evaluate: {cmd: 'false', params: [model]}}\n")

    with pytest.raises(StageError, match=r"dvc exp run .* failed"):
        train_comparator("faster_rcnn", root=two_methods, report=_ignore)
