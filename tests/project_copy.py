"""A copy of the project in a folder of its own, as a clone would be: code, settings and pipeline, nothing made."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SOMEBODY = {f"GIT_{role}_{part}": "nobody" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}


def copy_project(folder: Path) -> None:
    """Copy what a clone has of code, settings and pipeline into a folder; git does not know it yet."""
    for name in ("lstfe", "deploy", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "prefect.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody, whatever the machine knows of its user, and return its output."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        check=True,
        env=os.environ | _SOMEBODY,
        capture_output=True,
        text=True,
    )
    return done.stdout


def commit_all(folder: Path, message: str) -> None:
    """Commit everything, as somebody."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
