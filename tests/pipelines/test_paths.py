"""Where things lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from lstfe.errors import UserError
from pipelines.paths import find_project, main_root, work_dir


def test_outside_of_a_project_the_error_says_where_to_go(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no dvc.yaml here or above; run the command in the project's folder"
    ):
        find_project(tmp_path)


def test_the_project_is_found_from_a_folder_inside(project: Path) -> None:
    inside = project / "lstfe" / "model"
    inside.mkdir(parents=True)

    assert find_project(inside) == project.resolve()


def test_shared_state_lies_in_the_main_work_tree_when_dvc_runs_elsewhere(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main_root() == project.resolve()

    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    assert work_dir() == tmp_path.resolve() / ".work"
