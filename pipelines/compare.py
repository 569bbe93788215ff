"""`lstfe compare`: a comparator with the same budget, as a DVC experiment, and the methods side by side."""

from __future__ import annotations

import sys
from pathlib import Path

from lstfe.errors import UserError
from pipelines.checkout import settle_git
from pipelines.command import StageError
from pipelines.differences import differences
from pipelines.environment import child_environment
from pipelines.identity import current_commit
from pipelines.paths import EVALUATED, TRAINED
from pipelines.stage import Report, forget_experiment, run_group
from pipelines.tables import FIGURES, newest_by_method, read_scores, score_row, text_table
from pipelines.tracking import finished_runs
from pipelines.trained import load_record


def train_comparator(method: str, *, root: Path, report: Report) -> None:
    """Run the chain up to evaluate with `model.method` changed; raises UserError without git, or StageError."""
    if settle_git(root):
        raise UserError(
            f"{root}: no .git here, and DVC keeps experiments in git; clone the project to compare"
        )
    if current_commit() is None:
        raise UserError(f"{root}: git has no commit here, and DVC ties experiments to commits; commit first")
    name = method.replace("_", "-")
    # DVC's --force would replace the one of this name too, but train it again even if nothing has changed.
    forget_experiment(name, root=root)
    # --temp: in a copy, so that params.yaml and artifacts/ here stay as they are.
    options = ["--temp", "--name", name]
    command = ["dvc", "exp", "run", *options, "--set-param", f"model.method={method}", "evaluate"]
    exit_code = run_group(
        [sys.executable, "-m", *command], cwd=root, env=child_environment(root), report=report
    )
    if exit_code != 0:
        raise StageError(f"{' '.join(command)} failed, see its output above", exit_code=1)


def compared_runs() -> str:
    """Return a table with the newest run of each method that had the current run's data and budget.

    Beside the scores stands each one's difference to the current run, with its 95 % interval over videos.
    """
    runs = finished_runs()
    current = next((run for run in runs if run["id"] == load_record()["run_id"]), None)
    if current is None or not (newest := newest_by_method([current, *runs], like=current)):
        rows = [["this work tree", *score_row(read_scores(EVALUATED / "metrics.json")), "", ""]]
    else:
        apart = differences(current, [run for run in newest.values() if run is not current])
        rows = [
            [
                method,
                *score_row(run["metrics"]),
                apart.get(run["id"], ""),
                run["tags"].get("mlflow.runName", ""),
            ]
            for method, run in newest.items()
        ]
    return text_table(("method", *FIGURES, f"{FIGURES[0]} difference", "MLflow run"), rows)


def require_trained() -> None:
    """Raise UserError unless there is something to compare with."""
    if not (TRAINED / "run.json").is_file():
        raise UserError(f"{TRAINED}: no trained model to compare with; run `lstfe reproduce` first")
