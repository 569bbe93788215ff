"""`retrain`: from new data to a new champion, or to the reasons against it, in a work tree of its own.

Every step leaves its result on disk, so that a run which was killed is gone on with by the next one of the same data,
commit and champion. Prefect (pipelines/flows.py) hands in what runs a step; without it the same body just runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from lstfe.config import Config
from lstfe.params import load_config
from lstfe.whole_files import new_file
from pipelines import isolated_tree, registry
from pipelines.arrivals import data_state, is_settled
from pipelines.challenger import Challenger
from pipelines.environment import default_settings
from pipelines.gate import Decision
from pipelines.lock import hold_lock
from pipelines.model_versions import ensure_experiment
from pipelines.operations_config import OperationsConfig, load_operations
from pipelines.paths import PARAMS
from pipelines.stage import Report, bring_up_to_date, needed_stages

_T = TypeVar("_T")
_LOCK = isolated_tree.RETRAIN / "lock"
_FINISHED = isolated_tree.RETRAIN / "finished.json"
_PENDING = isolated_tree.RETRAIN / "pending.json"


class Step(Protocol):
    """Runs one named step and returns its result; Prefect's makes a task of it."""

    def __call__(self, name: str, action: Callable[[], _T]) -> _T: ...


def run_plainly(name: str, action: Callable[[], _T]) -> _T:
    """Run a step as it is."""
    return action()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a retraining."""

    action: Literal["nothing new", "promoted", "refused"]
    message: str
    """One line for people."""
    version: str | None = None
    """Of the challenger in the registry."""
    run_id: str | None = None
    """MLflow run of its training."""
    decision: Decision | None = None
    arrived: Mapping[str, list[str]] = field(default_factory=dict)
    """Delivery -> its videos."""
    branch: str | None = None
    """Where parameters, data version and dvc.lock were committed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a retraining starts from; `name` follows from all of it, so that the same plan finds the same tree."""

    root: Path
    tree_name: str
    commit: str
    digest: str
    """Of the data."""
    data_name: str
    champion: registry.Champion | None
    operations: OperationsConfig

    @property
    def tree(self) -> Path:
        """Its work tree."""
        return isolated_tree.tree_path(self.root, self.tree_name)

    @property
    def branch(self) -> str:
        """Its branch."""
        return f"retrain/{self.tree_name}"


def retrain_project(
    root: Path,
    *,
    step: Step = run_plainly,
    report: Report = print,
    force: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Train a challenger if there is new data (or `force`), and make it champion if the gate lets it.

    Runs with `root` as the current folder. Raises lock.Busy while another retraining of this project runs, UserError
    for what a user can mend, StageError where a stage failed.
    """
    isolated_tree.require_git(root)
    with contextlib.chdir(root), _alone(root, report):
        for mended in registry.repair(root):
            report(f"repaired: {mended}")
        _finish_pending(root, report)
        plan = step("look for new data", lambda: make_plan(root, force=force))
        if isinstance(plan, str):
            _remove_trees(root, None)
            report(plan)
            return Outcome(action="nothing new", message=plan)
        _remove_trees(root, plan.tree_name)
        settings = {**_tree_environment(root), **(environment or {})}
        challenger = Challenger(plan, settings, report)
        step("open a work tree", lambda: isolated_tree.open_tree(root, plan.tree_name, report))
        arrived = step("take the data in", challenger.take_data)
        step("check the data", challenger.check_data)
        for stage in needed_stages(plan.tree, "evaluate", "deploy"):
            _run_stage(step, stage, plan.tree, report, settings)
        step("score the champion", challenger.score_champion)
        step("measure latency", challenger.measure_latency)
        decision = step("decide", challenger.decide)
        version, run_id = step("register", challenger.register)
        return step(
            "promote" if decision.promote else "refuse",
            lambda: _conclude(plan, decision, version, run_id, arrived, report),
        )


def make_plan(root: Path, *, force: bool = False) -> Plan | str:
    """Return what a retraining would start from, or why there is nothing to do."""
    operations = load_operations(root / PARAMS)
    config, commit = committed_config(root), isolated_tree.head(root)
    name, champion = config.data.name, registry.read_champion(root)
    state = data_state(root, name)
    last = _read(root / _FINISHED)
    is_new = (state.digest, name) != (last.get("digest"), last.get("data_name")) or (
        champion is None and commit != last.get("commit")
    )
    if not (is_new or force):
        return f"nothing new: {name} has not changed since {last['time']}, when {last['message']}"
    if not is_settled(state, operations.retrain.settle_seconds):
        return (
            f"nothing new yet: {name} was changed less than {operations.retrain.settle_seconds:.0f} seconds ago "
            "(retrain.settle_seconds), somebody may still be copying; the next run looks again"
        )
    identity = [commit, state.digest, name, champion.version if champion else None]
    if not is_new:
        identity.append(last.get("time"))
    tree_name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:10]
    return Plan(
        root=root,
        tree_name=tree_name,
        commit=commit,
        digest=state.digest,
        data_name=name,
        champion=champion,
        operations=operations,
    )


def committed_config(root: Path) -> Config:
    """Return the configuration of the current commit: unfinished edits are nobody's business but their author's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PARAMS.name
        path.write_text(isolated_tree.committed(root, PARAMS), encoding="utf-8")
        return load_config(path)


def _run_stage(step: Step, stage: str, tree: Path, report: Report, settings: Mapping[str, str]) -> None:
    step(stage, lambda: bring_up_to_date(stage, root=tree, report=report, environment=settings))


def _conclude(
    plan: Plan,
    decision: Decision,
    version: str,
    run_id: str,
    arrived: Mapping[str, list[str]],
    report: Report,
) -> Outcome:
    """Commit, promote or refuse, and remember; each part may be done again after a kill."""
    what = "promoted" if decision.promote else "refused"
    message = f"version {version} was {what} ({decision.summary})"
    isolated_tree.commit_tree(plan.tree, f"Retrain on {plan.data_name}: version {version} {what}")
    pending = {
        "promote": decision.promote,
        "version": version,
        "summary": decision.summary,
        "tree_name": plan.tree_name,
        "finished": {
            "digest": plan.digest,
            "data_name": plan.data_name,
            "commit": plan.commit,
            "message": message,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    _write(plan.root / _PENDING, pending)
    _finish_pending(plan.root, report)
    return Outcome(
        action="promoted" if decision.promote else "refused",
        message=message,
        version=version,
        run_id=run_id,
        decision=decision,
        arrived=arrived,
        branch=plan.branch,
    )


def _finish_pending(root: Path, report: Report) -> None:
    """Do what was decided: move the pointer or note the refusal, then remember it and clear the tree away."""
    pending = _read(root / _PENDING)
    if not pending:
        return
    version, summary = str(pending["version"]), str(pending["summary"])
    if pending["promote"]:
        champion = registry.promote(version, root, reason=summary)
        report(f"champion is version {champion.version}: {champion.bundle}")
    else:
        registry.refuse(root, version, reason=summary)
        report(f"version {version} stays outside: {summary}")
    _write(root / _FINISHED, pending["finished"])
    isolated_tree.close_tree(root, str(pending["tree_name"]))
    (root / _PENDING).unlink()


@contextlib.contextmanager
def _alone(root: Path, report: Report) -> Iterator[None]:
    with hold_lock(root / _LOCK, what="a retraining of this project"):
        isolated_tree.end_orphans(root, report)
        yield


def _remove_trees(root: Path, kept: str | None) -> None:
    for name in isolated_tree.other_trees(root, kept):
        isolated_tree.close_tree(root, name)


def _tree_environment(root: Path) -> dict[str, str]:
    """Return what makes stages of the tree use the main tree's stores."""
    ensure_experiment()  # its place of artifacts is frozen when it is made: it must not be the tree
    name = "MLFLOW_TRACKING_URI"
    store = os.environ.get(name) or default_settings(root)[name]
    return {name: store, isolated_tree.MARK: str(root.resolve())}


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, is_durable=True) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
