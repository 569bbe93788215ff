"""Where things lie.

Data and stage outputs are relative to the working directory, because DVC runs queued experiments in a copy
of the project. What outlives a stage (checkpoints, the MLflow store) lies in the main work tree, which DVC
names in DVC_ROOT.
"""

from __future__ import annotations

import os
from pathlib import Path

from lstfe.errors import UserError

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")

RAW = Path("data/raw")
PREPARED = Path("data/prepared")

ARTIFACTS = Path("artifacts")
TRAINED = ARTIFACTS / "trained"
EVALUATED = ARTIFACTS / "evaluated"
EXPORTED = ARTIFACTS / "exported"
DEPLOYED = ARTIFACTS / "deployed"
DEMO = ARTIFACTS / "demo"
CHECKED = ARTIFACTS / "checked"
SHOWN = ARTIFACTS / "shown"

CHAMPION_DETECTIONS = Path(".work/champion/detections.json")
"""What the champion finds on a challenger's split, in the tree that the challenger is made in."""

SERVING = Path(".work/serving")
"""Of the main work tree: bundles of all versions, which one is champion, and how that came."""

EMBEDDED = "embedded"
"""Name of the data set that the render stage writes."""


def find_project(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` (default: here) that holds dvc.yaml; raises UserError."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / PIPELINE).is_file():
            return folder
    raise UserError(f"{start}: no {PIPELINE} here or above; run the command in the project's folder")


def enter_project() -> Path:
    """Make the project's folder the current one and return it: DVC, Prefect and all paths count from there."""
    root = find_project()
    os.chdir(root)
    return root


def main_root() -> Path:
    """Return the main work tree, also from within an experiment that DVC runs elsewhere."""
    root = os.environ.get("DVC_ROOT")
    return Path(root).resolve() if root else find_project()


def work_dir() -> Path:
    """Return the folder for what outlives a stage and belongs to nobody's repository."""
    return main_root() / ".work"


def champion_pointer(root: Path) -> Path:
    """Return where a project says which bundle is champion; there is no file before the first promotion."""
    return root / SERVING / "champion.json"
