"""A run as MLflow keeps it: made, found again, completed, filled, by the client that `Store.attempt` hands out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lstfe.config import Config
from lstfe.params import flatten, load_config
from pipelines.identity import files_md5, origin_tags
from pipelines.journal import Entry, read_journal
from pipelines.trained import HISTORY, RUN, WEIGHTS, read_json

RUN_FILE, JOURNAL_FILE = RUN.name, HISTORY.name
"""In artifacts/trained, and in the state of an unfinished training."""
SWEEP = "LSTFE_SWEEP"
"""Environment variable: the name of the sweep that a training belongs to; its run is then nested below the sweep's."""
SWEEP_PARENT = "sweep.parent"
"""Tag of the runs that stand above those of a sweep."""

_MAX_METRICS, _MAX_PARAMS = 1000, 100  # MLflow's limits for one batch
_MAX_DIGEST = 36
_WEIGHTS_TAG = "weights.md5"
_NAME_CHARACTERS = re.compile(r"[^\w\-. ]")  # what may stand in a quoted name of MLflow's filters
_METRIC_CHARACTERS = re.compile(r"[^\w\-. :/]")  # names of classes are in names of metrics


def run_exists(client: Any, run_id: str) -> bool:
    """Return whether MLflow knows a run and has not deleted it."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return False
        raise


def create_run(client: Any, experiment_id: str, config: Config, tags: dict[str, str]) -> str:
    """Make the run of a training, below its sweep if it has one, with all parameters; return its id."""
    origin = origin_tags()
    suffix = origin.get("dvc.exp_name") or tags["train.key"][:6]
    source = {"mlflow.source.name": "pipelines.train"}
    if "git.commit" in origin:
        source["mlflow.source.git.commit"] = origin["git.commit"]
    if sweep := _NAME_CHARACTERS.sub("_", os.environ.get(SWEEP, "")):
        source |= {"mlflow.parentRunId": _sweep_parent(client, experiment_id, sweep), "sweep": sweep}
    run = client.create_run(
        experiment_id,
        tags=source | origin | tags,
        run_name=f"{config.model.method}-{config.model.preset}-{suffix}",
    )
    run_id = str(run.info.run_id)
    _log_params(client, run_id, config)
    return run_id


def _sweep_parent(client: Any, experiment_id: str, sweep: str) -> str:
    """Return the run that stands above those of a sweep; the first of them makes it."""

    def find() -> list[Any]:
        of_sweep = f"tags.`{SWEEP_PARENT}` = '{sweep}'"
        return list(client.search_runs([experiment_id], of_sweep, order_by=["attributes.start_time ASC"]))

    if not find():
        made = client.create_run(experiment_id, tags={SWEEP_PARENT: sweep}, run_name=sweep)
        client.set_terminated(made.info.run_id, "FINISHED")
        if (first := find()[0]).info.run_id != made.info.run_id:  # another process was quicker
            client.delete_run(made.info.run_id)
        return str(first.info.run_id)
    return str(find()[0].info.run_id)


def _log_params(client: Any, run_id: str, config: Config) -> None:
    from mlflow.entities import Param

    params = [Param(name, str(value)[:6000]) for name, value in flatten(config).items()]
    for start in range(0, len(params), _MAX_PARAMS):
        client.log_batch(run_id, params=params[start : start + _MAX_PARAMS])


def restored_run(client: Any, experiment_id: str, trained: Path, record: Mapping[str, Any]) -> str:
    """Copy a training's run from its files: parameters, metrics, key; the next stage finds the copy again."""
    old = record["run_id"] or f"untracked-{record['train_key']}"
    copies = f"tags.restored_from = '{old}'"
    found = client.search_runs([experiment_id], filter_string=copies, max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {name: record[key] for name, key in (("train.key", "train_key"), ("data.md5", "data_md5"))}
    run_id = create_run(client, experiment_id, load_config(trained / "config.yaml"), tags)
    client.set_tag(run_id, "restored_from", old)
    return run_id


def complete_run(client: Any, run_id: str, trained: Path) -> None:
    """Send a training's metrics and result where the run lacks the last of them: all are sent in their order."""
    entries = read_journal(trained / JOURNAL_FILE)
    if entries:
        *_, name = entries[-1]
        points = client.get_metric_history(run_id, _METRIC_CHARACTERS.sub("_", name))
        if entries[-1]["iteration"] not in {point.step for point in points}:
            log_entries(client, run_id, entries)  # points that are there stay as they are
    if _WEIGHTS_TAG not in client.get_run(run_id).data.tags:
        for name, value in result_tags(trained).items():
            client.set_tag(run_id, name, value)


def result_tags(trained: Path) -> dict[str, str]:
    """Return what a run is tagged with once its training has ended: the machine, and the hash of the weights."""
    record = read_json(trained / RUN_FILE)
    machine = {f"machine.{name}": str(value) for name, value in record.get("machine", {}).items()}
    return machine | {_WEIGHTS_TAG: files_md5([trained / WEIGHTS.name])}


def log_entries(client: Any, run_id: str, entries: Sequence[Entry]) -> None:
    """Send metrics, as many in a batch as MLflow takes."""
    from mlflow.entities import Metric

    metrics = [
        Metric(
            _METRIC_CHARACTERS.sub("_", name),
            float(value),
            int(entry["time"] * 1000),
            int(entry["iteration"]),
        )
        for entry in entries
        for name, value in entry.items()
        if name not in ("iteration", "time") and isinstance(value, (int, float))
    ]
    for start in range(0, len(metrics), _MAX_METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + _MAX_METRICS])


def log_data_set(client: Any, run_id: str, name: str, md5: str, *, split: str) -> None:
    """Note the data that a stage has looked at; the same data again changes nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": f"data/prepared/{name}/annotations/{split}.json"})
    # The whole set has one hash, so it is the name that tells the splits apart.
    data_set = Dataset(f"{name}-{split}", md5[:_MAX_DIGEST], source_type="local", source=source)
    context = "training" if split == "train" else "evaluation"
    client.log_inputs(run_id, [DatasetInput(data_set, [InputTag("mlflow.data.context", context)])])


def end_stale_runs(client: Any, experiment_id: str, train_key: str, *, keep: str) -> None:
    """End what a kill left RUNNING: nobody else will."""
    stale = f"tags.`train.key` = '{train_key}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], filter_string=stale):
        if run.info.run_id != keep:
            client.set_terminated(run.info.run_id, "KILLED")
