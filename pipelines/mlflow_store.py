"""The connection to MLflow, which may be down at any time: an attempt that fails costs a warning and nothing else."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pipelines.environment import apply_default_settings
from pipelines.paths import work_dir

logger = logging.getLogger(__name__)

EXPERIMENT = "lstfe"
_DOWN_SECONDS = 60.0
_PROBE_SECONDS = 3.0

_Result = TypeVar("_Result")
Action = Callable[[Any, str], _Result]
"""Takes MLflow's client and the experiment's id."""


class Store:
    """MLflow at best effort: a failure is reported once, and nothing is tried again for a minute."""

    def __init__(self) -> None:
        self._client: Any = None
        self._experiment_id = ""
        self._down_until = 0.0
        self._is_reported = False
        self._lock = threading.RLock()

    def attempt(self, action: Action[_Result], *, at_last: bool = False) -> _Result | None:
        """Return what `action` returns, None when MLflow is down; `at_last` tries even after a failure."""
        with self._lock:
            if time.monotonic() < self._down_until and not at_last:
                return None
            try:
                self._connect()
                return action(self._client, self._experiment_id)
            except Exception as error:  # whatever it is, it must not cost a training
                self._down_until = time.monotonic() + _DOWN_SECONDS
                self._report(error)
                return None

    def _report(self, error: Exception) -> None:
        if not self._is_reported:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            logger.warning("MLflow is not there, going on without it (metrics are kept on disk): %s", reason)
        self._is_reported = True

    def _connect(self) -> None:
        apply_default_settings()
        uri = os.environ["MLFLOW_TRACKING_URI"]
        require_listener(uri)
        if self._client is not None:
            return
        # Its schema set-up tells of every table; the message above says what matters.
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        work_dir().mkdir(parents=True, exist_ok=True)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        self._experiment_id = _find_experiment(client, uri)
        self._client = client


def _find_experiment(client: Any, uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        # MLflow freezes the location, by default one below the folder that happens to be current.
        local = (work_dir() / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
        return str(client.create_experiment(EXPERIMENT, artifact_location=local))
    return str(found.experiment_id)


def require_listener(uri: str) -> None:
    """Raise OSError when nobody listens at an http address; MLflow itself would retry for a long time."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), timeout=_PROBE_SECONDS).close()
