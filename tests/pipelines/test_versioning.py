"""Imported data under DVC: a remote gives all of it back, and a change of it shows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lstfe.data.importers.fl_drones import import_fl_drones
from lstfe.data.raw import ImportOptions
from pipelines.environment import child_environment

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def _run(*command: str) -> str:
    """Run a command in the project and return what it prints."""
    identity = {
        f"GIT_{role}_{part}": "nobody" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")
    }
    result = subprocess.run(
        command, env=child_environment(Path.cwd(), identity), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _dvc(*arguments: str) -> str:
    return _run(sys.executable, "-m", "dvc", *arguments)


def _commit(message: str) -> None:
    _run("git", "add", "--all")
    _run("git", "commit", "--quiet", "-m", message)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def imported(project: Path, tiny_raw: Path) -> Path:
    """A project whose chain ends at prepare, with a data set called `mine`: imported, added and committed."""
    for name in ("lstfe", "pipelines"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".gitignore", project)
    yaml = YAML()
    params, chain = (yaml.load(ROOT / name) for name in ("params.yaml", "dvc.yaml"))
    params["data"]["name"] = "mine"
    yaml.dump(params, project / "params.yaml")
    kept = {"stages": {"prepare": chain["stages"]["prepare"]}, "params": chain["params"]}
    yaml.dump(kept, project / "dvc.yaml")
    _import(tiny_raw, ImportOptions())
    _dvc("repro")
    _commit("data")
    return project


def _import(source: Path, options: ImportOptions) -> None:
    raw = Path("data") / "raw" / "mine"
    if raw.exists():
        shutil.rmtree(raw)
    import_fl_drones(source, raw, options)
    _dvc("add", str(raw))


def test_what_was_pushed_comes_back_and_nothing_is_left_to_do(imported: Path, tmp_path: Path) -> None:
    before = _files(imported / "data")
    assert {"raw/mine.dvc", "raw/mine/report.json", "prepared/mine/report.json"} <= before.keys()
    assert _run("git", "ls-files", "data").split() == ["data/raw/mine.dvc"]
    _dvc("remote", "add", "--default", "store", str(tmp_path / "store"))
    _dvc("push")
    for folder in ("data/raw/mine", "data/prepared", ".dvc/cache"):
        shutil.rmtree(imported / folder)

    _dvc("pull")

    assert _files(imported / "data") == before
    assert "up to date" in _dvc("status")
    assert "up to date" in _dvc("repro")


def test_a_change_of_the_data_shows_in_the_differences(imported: Path, tiny_raw: Path) -> None:
    old = YAML(typ="safe").load(imported / "data" / "raw" / "mine.dvc")["outs"][0]["md5"]

    _import(tiny_raw, ImportOptions(split="half"))

    changed = {entry["path"] for entry in json.loads(_dvc("diff", "--json"))["modified"]}
    assert os.path.join("data", "raw", "mine", "") in changed  # noqa: PTH118, DVC's own words for a folder
    _dvc("exp", "run", "--name", "half")
    difference = json.loads(_dvc("exp", "diff", "HEAD", "half", "--json"))["params"]["data/raw/mine.dvc"]
    [before], [after] = (
        json.loads(str(difference["outs"][side]).replace("'", '"')) for side in ("old", "new")
    )
    new = YAML(typ="safe").load(imported / "data" / "raw" / "mine.dvc")["outs"][0]["md5"]
    assert (before["md5"], after["md5"]) == (old, new)
    assert old != new
