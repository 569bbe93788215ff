"""Runs in MLflow: it remembers and compares, and may be down at any time.

A training writes its metrics to a local journal; a thread carries them to MLflow in batches, so that neither
a slow nor a dead server stalls or fails a stage. Later stages go on with the run that `train` opened.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lstfe.config import Config
from lstfe.errors import UserError
from pipelines.identity import lock_md5, origin_tags
from pipelines.journal import Journal
from pipelines.mlflow_runs import (
    JOURNAL_FILE,
    RUN_FILE,
    SWEEP_PARENT,
    complete_run,
    create_run,
    end_stale_runs,
    log_data_set,
    log_entries,
    restored_run,
    run_exists,
)
from pipelines.mlflow_store import Action, Store
from pipelines.tracked_model import ModelFiles, log_model

_DELIVERY_SECONDS = 5.0
_MAX_RUNS = 200


class Run:
    """One MLflow run; each method does what it can and never raises because MLflow is down."""

    def __init__(self, store: Store, open_run: Action[str], journal: Journal | None = None) -> None:
        self._store, self._open_run, self._journal = store, open_run, journal
        self.id: str | None = None
        """MLflow's run id; None as long as MLflow could not be reached."""

    @property
    def journal(self) -> Path:
        """The training's metrics on local disk."""
        assert self._journal is not None, "only a training has a journal"
        return self._journal.path

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        """Keep metrics of one iteration: at once on local disk, in MLflow a few seconds later."""
        if self._journal is not None:
            self._journal.append(metrics, iteration)

    def log_summary(self, metrics: Mapping[str, float]) -> None:
        """Log metrics that belong to no iteration."""
        entry = {"iteration": 0, "time": time.time(), **metrics}
        self._attempt(lambda client, run_id: log_entries(client, run_id, [entry]))

    def log_files(self, paths: Iterable[Path], folder: str) -> None:
        """Copy files into the run's `folder`."""
        files = list(paths)

        def copy(client: Any, run_id: str) -> None:
            for path in files:
                client.log_artifact(run_id, str(path), folder)

        self._attempt(copy)

    def log_folder(self, source: Path, folder: str) -> None:
        """Copy all files of a folder into the run's `folder`."""
        self._attempt(lambda client, run_id: client.log_artifacts(run_id, str(source), folder))

    def log_model(self, model: ModelFiles) -> None:
        """Store a bundle as an MLflow model of the run, with its signature and the code to run it."""
        self._attempt(lambda client, run_id: log_model(client, run_id, model))

    def log_data_set(self, name: str, md5: str, *, split: str) -> None:
        """Note the data that a stage has looked at; the same data again changes nothing."""
        self._attempt(lambda client, run_id: log_data_set(client, run_id, name, md5, split=split))

    def log_text(self, text: str, name: str) -> None:
        """Store a text as the run's file `name`."""
        self._attempt(lambda client, run_id: client.log_text(run_id, text, name))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags, those that are None left out."""

        def set_each(client: Any, run_id: str) -> None:
            for name, value in tags.items():
                if value is not None:
                    client.set_tag(run_id, name, str(value))

        self._attempt(set_each)

    def deliver(self, *, at_last: bool = False) -> None:
        """Open the run if that has not worked yet, then send what the journal has and MLflow lacks."""
        if self.id is None:
            self.id = self._store.attempt(self._open_run, at_last=at_last)
        if self._journal is None:
            return
        entries = self._journal.undelivered()
        send = partial(log_entries, entries=entries)
        if entries and self._attempt(send, at_last=at_last):
            self._journal.mark_delivered(len(entries))

    def close(self, status: str) -> None:
        """Send what is left and end the run as FINISHED, FAILED or KILLED."""
        self.deliver(at_last=True)
        self._attempt(lambda client, run_id: client.set_terminated(run_id, status))

    def _attempt(self, action: Action[object], *, at_last: bool = False) -> bool:
        """Return whether `action` was done on this run."""
        run_id = self.id
        if run_id is None:
            return False

        def act(client: Any, _: str) -> bool:
            action(client, run_id)
            return True

        return self._store.attempt(act, at_last=at_last) is True


@contextlib.contextmanager
def training_run(config: Config, *, train_key: str, state_dir: Path, data_md5: str) -> Iterator[Run]:
    """Open the run of a training, or go on with the one that an interrupted training left in `state_dir`."""

    def open_run(client: Any, experiment_id: str) -> str:
        remembered = _remembered_id(state_dir)
        run_id = remembered if remembered and run_exists(client, remembered) else None
        if run_id is None:
            run_id = create_run(client, experiment_id, config, {"train.key": train_key, "data.md5": data_md5})
            log_data_set(client, run_id, config.data.name, data_md5, split="train")
        state_dir.joinpath(RUN_FILE).write_text(json.dumps({"run_id": run_id}), encoding="utf-8")
        client.update_run(run_id, status="RUNNING")
        end_stale_runs(client, experiment_id, train_key, keep=run_id)
        return run_id

    run = Run(Store(), open_run, Journal(state_dir / JOURNAL_FILE))
    with _ended_by_outcome(run), _delivered_regularly(run):
        yield run


def _remembered_id(state_dir: Path) -> str | None:
    try:
        return str(json.loads(state_dir.joinpath(RUN_FILE).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError):
        return None


@contextlib.contextmanager
def continue_run(run_file: Path, *, stage: str) -> Iterator[Run]:
    """Go on with the run that `run_file` names, or with a copy where MLflow lacks it (`restored_from`).

    What MLflow missed because it was down when the training ended is sent first.
    """
    if not run_file.is_file():
        raise UserError(f"{run_file}: no such file, expected a trained model; run `lstfe reproduce`")
    record = json.loads(run_file.read_text(encoding="utf-8"))

    def open_run(client: Any, experiment_id: str) -> str:
        run_id = record["run_id"]
        if not (run_id and run_exists(client, run_id)):
            run_id = restored_run(client, experiment_id, run_file.parent, record)
        complete_run(client, run_id, run_file.parent)
        client.update_run(run_id, status="RUNNING")
        for name, value in origin_tags().items():
            client.set_tag(run_id, name if name == "dvc.lock.md5" else f"{stage}.{name}", value)
        return str(run_id)

    run = Run(Store(), open_run)
    with _ended_by_outcome(run):
        run.deliver()
        yield run


def tag_lock(run_file: Path) -> None:
    """Tag the run with the hash of dvc.lock, which is final only when the last stage has ended."""
    run_id = json.loads(run_file.read_text(encoding="utf-8"))["run_id"]

    def tag(client: Any, experiment_id: str) -> None:
        if run_id and run_exists(client, run_id):
            client.set_tag(run_id, "dvc.lock.md5", lock_md5())

    Store().attempt(tag)


def fetch_file(run_id: str, path: str, destination: Path) -> Path | None:
    """Copy a file of a run into a folder and return where it is; None where the run or MLflow lacks it."""

    def fetch(client: Any, _: str) -> Path | None:
        if path not in (file.path for file in client.list_artifacts(run_id, str(Path(path).parent))):
            return None
        return Path(client.download_artifacts(run_id, path, str(destination)))

    return Store().attempt(fetch)


def finished_runs() -> list[dict[str, Any]]:
    """Return finished runs, newest first, as id, started, params, metrics, tags; none without MLflow.

    The parents of sweeps are left out: they have no scores of their own.
    """

    def find(client: Any, experiment_id: str) -> list[dict[str, Any]]:
        found = client.search_runs(
            [experiment_id],
            filter_string="attributes.status = 'FINISHED'",
            max_results=_MAX_RUNS,
            order_by=["attributes.start_time DESC"],
        )
        return [
            {
                "id": run.info.run_id,
                "started": run.info.start_time / 1000,
                "params": dict(run.data.params),
                "metrics": dict(run.data.metrics),
                "tags": dict(run.data.tags),
            }
            for run in found
            if SWEEP_PARENT not in run.data.tags
        ]

    return Store().attempt(find) or []


def runs_page() -> str:
    """Return where MLflow's pages list the runs, below the server's address; its start page does not."""
    experiment_id = Store().attempt(lambda client, experiment_id: experiment_id)
    return f"#/experiments/{experiment_id}/runs" if experiment_id else ""


@contextlib.contextmanager
def _ended_by_outcome(run: Run) -> Iterator[None]:
    try:
        yield
    except Exception:
        run.close("FAILED")
        raise
    except BaseException:  # Ctrl-C, or SIGTERM turned into SystemExit
        run.close("KILLED")
        raise
    run.close("FINISHED")


@contextlib.contextmanager
def _delivered_regularly(run: Run) -> Iterator[None]:
    """Open the run now; then deliver every few seconds in a thread of its own."""
    run.deliver()
    is_over = threading.Event()

    def carry() -> None:
        while not is_over.wait(_DELIVERY_SECONDS):
            run.deliver()

    courier = threading.Thread(target=carry, name="mlflow-courier", daemon=True)
    courier.start()
    try:
        yield
    finally:
        is_over.set()
        courier.join(timeout=30)
