"""Prefect, and its only importer: starts the DVC stages, one task each, and keeps their logs.

DVC alone decides what must run, so `dvc repro` without Prefect ends in the same state.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from lstfe.errors import UserError
from pipelines.command import TEMPORARY_FAILURE, StageError
from pipelines.paths import EVALUATED, TRAINED
from pipelines.stage import bring_up_to_date, stage_order
from pipelines.tables import FIGURES, markdown_table, read_scores, score_row


def is_temporary(task: Any, task_run: Any, state: Any) -> bool:
    """Return whether a task failed for want of a network: only then is a retry of any use."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageError) and error.exit_code == TEMPORARY_FAILURE


@task(
    task_run_name="{stage}",
    retries=3,
    retry_delay_seconds=[5, 30, 120],
    retry_condition_fn=is_temporary,
    cache_policy=NO_CACHE,
)
def run_stage(stage: str, root: Path) -> bool:
    """Bring one DVC stage up to date; True when it ran, False when DVC found nothing to do."""
    log = get_run_logger()
    environment = {"LSTFE_FLOW_RUN_ID": str(flow_run.id)} if flow_run.id else {}
    return bring_up_to_date(stage, root=root, report=log.info, environment=environment)


@flow(name="reproduce", log_prints=False)
def reproduce(root: Path) -> dict[str, bool]:
    """Bring every stage up to date in the order of DVC's graph; return which of them ran."""
    _make_logs_readable()
    ran = {stage: run_stage(stage, root) for stage in stage_order(root)}
    create_table_artifact(
        [{"stage": stage, "outcome": outcome(did_run)} for stage, did_run in ran.items()], key="stages"
    )
    create_markdown_artifact(summary(root), key="scores")
    return ran


def outcome(did_run: bool) -> str:
    """Say what became of a stage."""
    return "ran" if did_run else "up to date"


def summary(root: Path) -> str:
    """Return the scores of the work tree as Markdown, with the places to look for more."""
    scores = read_scores(root / EVALUATED / "metrics.json")
    table = markdown_table(FIGURES, [score_row(scores)])
    places = {"scores, curves, pictures": EVALUATED, "trained model and its MLflow run": TRAINED / "run.json"}
    links = [f"- {name}: [{path}]({(root / path).as_uri()})" for name, path in places.items()]
    return "\n".join(["# Scores", "", table, "", *links])


class _Readable(logging.Filter):
    """Takes the traceback off failures that explain themselves, and drops the echo of a good end."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, (StageError, UserError)):
            record.exc_info = None
        return not record.getMessage().startswith("Finished in state Completed")


def _make_logs_readable() -> None:
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(item, _Readable) for item in logger.filters):
            logger.addFilter(_Readable())
