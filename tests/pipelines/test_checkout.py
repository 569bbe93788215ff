"""A git checkout, or a downloaded archive."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from pipelines.checkout import has_git, settle_git
from pipelines.environment import child_environment


def _dvc(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, env=child_environment(root), capture_output=True, text=True)


def test_a_checkout_needs_no_settings(project: Path) -> None:
    assert settle_git(project) is None
    assert not (project / ".dvc" / "config.local").exists()


def test_an_archive_without_git_reproduces_and_says_in_one_line_what_does_not_work(toy: Path) -> None:
    shutil.rmtree(toy / ".git")
    refused = _dvc(toy, "repro")

    note = settle_git(toy)

    assert refused.returncode != 0
    assert "not a git repository" in refused.stderr
    assert note is not None
    assert "dvc exp" in note
    assert "\n" not in note
    assert _dvc(toy, "repro").returncode == 0
    assert (toy / "c.txt").read_text() == "one\n"


def test_an_archive_that_became_a_checkout_is_one_again(project: Path) -> None:
    (project / ".git").rename(project / "hidden")
    settle_git(project)
    (project / "hidden").rename(project / ".git")

    assert settle_git(project) is None
    assert _dvc(project, "status").returncode == 0
    assert "no_scm = false" in (project / ".dvc" / "config.local").read_text()


def test_a_users_own_local_settings_survive(project: Path) -> None:
    shutil.rmtree(project / ".git")
    local = project / ".dvc" / "config.local"
    local.write_text("['remote \"store\"']\n    url = /mnt/100%/store\n")

    settle_git(project)

    listed = _dvc(project, "config", "--list").stdout
    assert "remote.store.url=/mnt/100%/store" in listed
    assert "core.no_scm=true" in listed


def test_a_linked_work_tree_has_git(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: elsewhere\n")

    assert has_git(tmp_path)
