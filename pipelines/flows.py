"""The project's flows: Prefect starts what the other files do, one task a step, and keeps their logs.

Only this file and detection_flow.py import Prefect.

DVC alone decides which stages must run, so `dvc repro` without Prefect ends in the same state. Every flow may be
started at any time: it finds out by itself what is left to do (docs/operations.md).
"""

from __future__ import annotations

import base64
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed

from lstfe.errors import UserError
from pipelines import champion_watch, gate, retraining
from pipelines.champion_watch import watch_champion
from pipelines.command import TEMPORARY_FAILURE, StageError
from pipelines.environment import apply_default_settings
from pipelines.lock import Busy
from pipelines.model_versions import ModelVersions, RegistryDown
from pipelines.notify import notify
from pipelines.operations_config import load_operations
from pipelines.paths import EVALUATED, PARAMS, RAW, TRAINED, find_project
from pipelines.stage import bring_up_to_date, stage_order
from pipelines.tables import FIGURES, markdown_table, read_scores, score_row
from pipelines.trained import RUN, read_json

_T = TypeVar("_T")
_NUM_PICTURES = 4

# A worker loads this file as a script, for which Prefect puts the file's folder first in sys.path: the stage deploy.py
# would hide the package `deploy` there.
sys.path[:] = [path for path in sys.path if path != str(Path(__file__).resolve().parent)]

# No flow validates its parameters: a worker loads this file as a script of no package, where Prefect cannot resolve the
# names of annotations.


def is_temporary(task: Any, task_run: Any, state: Any) -> bool:
    """Return whether a task failed for want of a network: only then is a retry of any use."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, RegistryDown):
        return True
    return isinstance(error, StageError) and error.exit_code == TEMPORARY_FAILURE


_PLAIN: dict[str, Any] = {"log_prints": False, "validate_parameters": False}
# A network that is gone for a while costs nothing; what was done is not done again by any of these.
_RETRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": [5, 30, 120],
    "retry_condition_fn": is_temporary,
    "cache_policy": NO_CACHE,
}


@task(task_run_name="{stage}", **_RETRIED)
def run_stage(stage: str, root: Path) -> bool:
    """Bring one DVC stage up to date; True when it ran, False when DVC found nothing to do."""
    log = get_run_logger()
    environment = {"LSTFE_FLOW_RUN_ID": str(flow_run.id)} if flow_run.id else {}
    return bring_up_to_date(stage, root=root, report=log.info, environment=environment)


@flow(name="reproduce", **_PLAIN)
def reproduce(root: Path | str | None = None) -> dict[str, bool]:
    """Bring every stage up to date in the order of DVC's graph; return which of them ran."""
    _make_logs_readable()
    root = find_project(Path(root) if root else None)
    ran = {stage: run_stage(stage, root) for stage in stage_order(root)}
    create_table_artifact(
        [{"stage": stage, "outcome": outcome(did_run)} for stage, did_run in ran.items()], key="stages"
    )
    create_markdown_artifact(summary(root), key="scores")
    if shown := worst_misses(root):
        create_markdown_artifact(shown, key="misses")
    return ran


@task(task_run_name="{name}", **_RETRIED)
def run_step(name: str, action: Callable[[], Any]) -> Any:
    """Run one step of a flow."""
    return action()


def tell_of_failure(flow: Any, flow_run: Any, state: Any) -> None:
    """Post the end of a flow that went wrong to the webhook; a hook of Prefect's, which names the arguments."""
    with contextlib.suppress(UserError):
        given = flow_run.parameters.get("root")
        root = find_project(Path(given) if given else None)
        notify(root, "flow failed", str(state.message), flow=flow.name, run=flow_run.name, state=state.name)


_TOLD_OF: dict[str, Any] = _PLAIN | {"on_failure": [tell_of_failure], "on_crashed": [tell_of_failure]}


@flow(name="retrain", **_TOLD_OF)
def retrain(root: Path | str | None = None, force: bool = False) -> Any:
    """Train a challenger on new data, and make it champion if the gate lets it; without new data nothing happens."""
    log = _make_logs_readable()
    with _inside(root) as project:
        try:
            found = retraining.retrain_project(
                project,
                step=_Tasks(project),
                report=log.info,
                force=force,
                environment={"LSTFE_FLOW_RUN_ID": str(flow_run.id)} if flow_run.id else {},
            )
        except Busy as error:
            log.warning("%s", error)
            return Cancelled(message=str(error))
        _show_outcome(project, found)
        if found.action == "refused":
            notify(project, "challenger refused", found.message, version=found.version, run_id=found.run_id)
        return Completed(name=found.action.capitalize(), message=found.message)


@flow(name="evaluate_champion", **_TOLD_OF)
def evaluate_champion(root: Path | str | None = None, footage: Path | str | None = None) -> Any:
    """Compare incoming footage with what the champion was trained and tested on; drift is told to the webhook."""
    log = _make_logs_readable()
    with _inside(root) as project:
        found = _Tasks(project)(
            "compare footage",
            lambda: watch_champion(project, Path(footage) if footage else None, report=log.info),
        )
        _show_watch(found)
        if found.verdict == "drift":
            notify(project, "drift", found.message, report=str(found.report))
        return Completed(name=found.verdict.capitalize(), message=found.message)


@flow(name="check_data", **_TOLD_OF)
def check_data(root: Path | str | None = None) -> Any:
    """Check every raw data set as `lstfe data check` does; fails where one has errors."""
    from pipelines.checking import check_raw

    log = _make_logs_readable()
    with _inside(root) as project:
        step, outcomes = _Tasks(project), {}
        for raw in sorted(path.parent for path in (project / RAW).glob("*/annotations")):
            text, is_well = step(f"check {raw.name}", partial(check_raw, raw, None, root=project))
            log.info("%s", text)
            outcomes[raw.name] = is_well
        rows = [
            {"data set": name, "outcome": "well" if is_well else "errors"}
            for name, is_well in outcomes.items()
        ]
        create_table_artifact(rows, key="data-checks")
        if wrong := [name for name, is_well in outcomes.items() if not is_well]:
            raise UserError(
                f"{', '.join(wrong)}: has errors; artifacts/checked has the reports, mend what they tell"
            )
        return Completed(message=f"{len(outcomes)} data sets are well")


def outcome(did_run: bool) -> str:
    """Say what became of a stage."""
    return "ran" if did_run else "up to date"


def summary(root: Path) -> str:
    """Return the scores of the work tree as Markdown, with the places to look for more."""
    scores = read_scores(root / EVALUATED / "metrics.json")
    table = markdown_table(FIGURES, [score_row(scores)])
    places = {"scores, curves, pictures": EVALUATED, "trained model": TRAINED}
    links = [f"- {name}: [{path}]({(root / path).as_uri()})" for name, path in places.items()]
    with contextlib.suppress(OSError, ValueError, KeyError):  # a data set that is not trained on yet
        links.append(f"- MLflow run: {run_link(root, read_json(root / RUN)['run_id'])}")
    return "\n".join(["# Scores", "", table, "", *links])


def worst_misses(root: Path) -> str:
    """Return the pictures of the worst misses as Markdown that holds them itself; "" where there are none."""
    paths = sorted((root / EVALUATED / "pictures").glob("*.jpg"))[:_NUM_PICTURES]
    pictures = [
        f"![{path.stem}](data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()})"
        for path in paths
    ]
    return "\n\n".join(["# Worst misses", *pictures]) if pictures else ""


def run_link(root: Path, run_id: str | None) -> str:
    """Return a run's id as Markdown, with its page behind it where a server of MLflow shows one."""
    if not run_id:
        return "none, MLflow was down"
    page = None
    with contextlib.suppress(RegistryDown):
        page = ModelVersions(root).run_page(run_id)
    return f"[{run_id}]({page})" if page else run_id


class _Readable(logging.Filter):
    """Takes the traceback off failures that explain themselves, and drops the echo of a good end."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, (StageError, UserError)):
            record.exc_info = None
        return not record.getMessage().startswith("Finished in state Completed")


@contextlib.contextmanager
def _inside(root: Path | str | None) -> Iterator[Path]:
    """Make the project the current folder: all paths count from there; a worker may have been started elsewhere."""
    project = find_project(Path(root) if root else None)
    with contextlib.chdir(project):
        apply_default_settings()
        yield project


class _Tasks:
    """Makes a task of each step, with the project's time limit."""

    def __init__(self, root: Path) -> None:
        limit = load_operations(root / PARAMS).ops.step_timeout_hours * 3600
        self._task: Any = run_step.with_options(timeout_seconds=limit)

    def __call__(self, name: str, action: Callable[[], _T]) -> _T:
        result: _T = self._task(name, action)
        return result


def _show_outcome(root: Path, found: retraining.Outcome) -> None:
    """Leave the decision and where to look as artifacts."""
    lines = [f"# Retraining: {found.action}", "", found.message, ""]
    if found.decision is not None:
        lines += [markdown_table(gate.COLUMNS, found.decision.rows()), ""]
        rows = [dict(zip(gate.COLUMNS, row, strict=True)) for row in found.decision.rows()]
        create_table_artifact(rows, key="gate", description=found.message)
    lines += [f"- {item}: {', '.join(videos)}" for item, videos in found.arrived.items()]
    if found.version is not None:
        lines += [
            f"- registered model: lstfe, version {found.version}",
            f"- MLflow run: {run_link(root, found.run_id)}",
            f"- branch: {found.branch}",
        ]
    create_markdown_artifact("\n".join(lines), key="retraining")


def _show_watch(found: champion_watch.Watch) -> None:
    from pipelines import drift

    rows = [dict(zip(drift.COLUMNS, row, strict=True)) for row in drift.rows(found.comparisons)]
    create_table_artifact(rows, key="drift", description=found.message)


def _make_logs_readable() -> Any:
    """Return the flow run's logger, after teaching Prefect's not to echo."""
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(item, _Readable) for item in logger.filters):
            logger.addFilter(_Readable())
    return get_run_logger()
