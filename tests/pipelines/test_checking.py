"""`lstfe data check`: exit codes, and where the report goes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lstfe.errors import UserError
from pipelines import cli
from pipelines.checking import check_raw

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw(project: Path, tiny_raw: Path) -> Path:
    """A copy of the rendered data set in a project."""
    shutil.copy(ROOT / "params.yaml", project)
    shutil.copytree(tiny_raw, project / "data" / "raw" / "mine")
    return project / "data" / "raw" / "mine"


def _check(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["data", "check", *arguments])


def test_good_data_exits_with_0_and_leaves_the_data_alone(project: Path, raw: Path) -> None:
    before = sorted(raw.rglob("*"))
    result = _check("data/raw/mine")
    assert result.exit_code == 0, result.output
    assert "0 errors" in result.output
    assert sorted(raw.rglob("*")) == before
    output = project / "artifacts" / "checked" / "mine"
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "report.json"]
    assert json.loads((output / "report.json").read_text())["errors"] == 0


def test_outside_of_a_project_the_report_needs_a_place(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = _check(str(raw))
    assert isinstance(result.exception, UserError)
    assert "no project here or above" in str(result.exception)
    assert "--output" in str(result.exception)

    result = _check(str(raw), "--output", "report")
    assert result.exit_code == 0, result.output
    assert (elsewhere / "report" / "report.json").is_file()


def test_what_must_be_mended_exits_with_1_and_has_a_report(raw: Path, tmp_path: Path) -> None:
    next((raw / "videos").iterdir()).unlink()
    result = _check("data/raw/mine", "--output", str(tmp_path / "report"))
    assert result.exit_code == 1
    assert "unreadable_video: 1 case" in result.output
    assert "no such video" in result.output
    assert json.loads((tmp_path / "report" / "report.json").read_text())["cases"]["unreadable_video"] == 1


def test_what_cannot_be_checked_is_an_error_of_the_user(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        check_raw(Path("nowhere"), None)
    (raw / "annotations" / "val.json").write_text("{")
    with pytest.raises(UserError, match=r"val.json:1: .*expected"):
        check_raw(raw, None)
    assert not (tmp_path / "artifacts").exists()


def test_a_report_that_cannot_be_written_is_an_error_of_the_user(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: not writable"):
        check_raw(raw, tmp_path / "file")
