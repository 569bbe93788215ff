"""A work tree of its own: made, gone on with, committed, removed; and the user's own stays as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lstfe.errors import UserError
from pipelines.isolated_tree import (
    MARK,
    close_tree,
    commit_tree,
    committed,
    end_orphans,
    open_tree,
    other_trees,
    require_git,
    set_params,
    tree_path,
)
from pipelines.stage import bring_up_to_date

_AUTHOR = {f"GIT_{role}_{part}": "nobody" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}


@pytest.fixture
def repository(toy: Path) -> Path:
    """The toy project with a commit, its stages run once."""
    (toy / ".gitignore").write_text("/.work/\n")
    _commit(toy)
    for stage in ("a", "b"):
        bring_up_to_date(stage, root=toy, report=_quiet)
    return toy


def _commit(folder: Path) -> None:
    for command in (["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], cwd=folder, check=True, env=os.environ | _AUTHOR)


def _quiet(line: str) -> None:
    pass


def _branches(folder: Path) -> list[str]:
    command = ["git", "for-each-ref", "--format=%(refname:short)", "refs/heads/retrain"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.slow
def test_a_tree_has_the_commit_and_the_cache_but_not_the_users_edits(repository: Path) -> None:
    (repository / "params.yaml").write_text("word: unfinished\n")

    tree = open_tree(repository, "one", _quiet)
    lines: list[str] = []
    for stage in ("a", "b"):
        bring_up_to_date(stage, root=tree, report=lines.append)

    assert (tree / "params.yaml").read_text() == "word: one\n"
    assert (tree / "b.txt").read_text() == "one\n"
    assert not any("> cat" in line for line in lines), "made again, though the cache has it"
    assert committed(repository, Path("params.yaml")) == "word: one\n"
    assert (repository / "params.yaml").read_text() == "word: unfinished\n"


@pytest.mark.slow
def test_a_tree_is_gone_on_with_and_a_half_made_one_is_made_again(repository: Path) -> None:
    tree = open_tree(repository, "one", _quiet)
    (tree / "mine.txt").touch()
    said: list[str] = []

    assert open_tree(repository, "one", said.append) == tree
    assert (tree / "mine.txt").exists()
    assert said == [f"going on in {tree}"]

    (tree / ".dvc" / "tmp" / ".whole").unlink()  # a kill came before the end
    open_tree(repository, "one", _quiet)
    assert not (tree / "mine.txt").exists()


@pytest.mark.slow
def test_what_is_committed_stays_on_the_branch_and_what_is_not_goes_with_the_tree(repository: Path) -> None:
    tree = open_tree(repository, "one", _quiet)
    set_params(tree, {"word": "two"})
    commit_tree(tree, "Retrain: two")
    open_tree(repository, "two", _quiet)
    assert other_trees(repository, "one") == ["two"]

    for name in ("one", "two"):
        close_tree(repository, name)

    assert _branches(repository) == ["retrain/one"]
    assert other_trees(repository, None) == []
    shown = subprocess.run(
        ["git", "show", "retrain/one:params.yaml"], cwd=repository, capture_output=True, text=True, check=True
    )
    assert shown.stdout == "word: two\n"


def test_an_unknown_parameter_is_refused_with_its_name(repository: Path) -> None:
    with pytest.raises(UserError, match=r"no parameter train\.iterations"):
        set_params(repository, {"train.iterations": 3})


def test_without_git_or_a_commit_there_is_nothing_to_start_from(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="git has no commit here"):
        require_git(project)
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(UserError, match=r"no \.git here"):
        require_git(bare)


def test_processes_that_a_killed_retraining_left_at_work_are_ended_and_no_others(tmp_path: Path) -> None:
    # Who runs the tests in the background of a shell has SIGINT ignored, and with it all that they start.
    code = (
        "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "print('up', flush=True); time.sleep(60)"
    )
    marks = [str(tmp_path.resolve()), str(tmp_path / "another project"), ""]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {MARK: mark}, stdout=subprocess.PIPE, text=True
        )
        for mark in marks
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        said: list[str] = []

        end_orphans(tmp_path, said.append)

        assert [child.poll() is None for child in children] == [False, True, True]
        assert said == [f"process {children[0].pid} of an earlier retraining is still at work: SIGINT"]
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_a_trees_path_is_below_the_projects_own_work_folder(tmp_path: Path) -> None:
    assert tree_path(tmp_path, "one") == tmp_path / ".work" / "retrain" / "one"
