"""The connection to MLflow, which may be down at any time: an attempt that fails costs a warning and nothing else.

So does a bug of ours in an attempt, but the log says that it is one.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from lstfe.errors import one_line
from pipelines.environment import apply_default_settings, default_settings
from pipelines.paths import main_root, work_dir

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
        self._reported: set[bool] = set()
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
                is_bug = not _is_of_mlflow(error)
                if not is_bug:
                    self._down_until = time.monotonic() + _DOWN_SECONDS
                self._report(error, is_bug=is_bug)
                return None

    def _report(self, error: Exception, *, is_bug: bool) -> None:
        """Log the first failure of either kind."""
        if is_bug not in self._reported:
            reason = one_line(error)[:300]
            if is_bug:
                text = "a bug kept something from MLflow, going on (metrics are kept on disk): %s: %s"
                logger.error(text, type(error).__name__, reason, exc_info=error)
            else:
                text = "MLflow is not there, going on without it (metrics are kept on disk): %s"
                logger.warning(text, reason)
        self._reported.add(is_bug)

    def _connect(self) -> None:
        root = main_root()
        uri = tracking_uri(root)
        if self._client is not None:
            require_listener(uri)
            return
        work_dir().mkdir(parents=True, exist_ok=True)
        client = open_client(root)
        self._experiment_id = _find_experiment(client, uri)
        self._client = client


def _is_of_mlflow(error: Exception) -> bool:
    """Return whether MLflow, its database or the way to it (requests' errors are OSErrors) caused an error."""
    if isinstance(error, OSError):
        return True
    try:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        return False
    return isinstance(error, (MlflowException, SQLAlchemyError))


def tracking_uri(root: Path) -> str:
    """Return where a project's MLflow is: a server, or the store in its folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or default_settings(root)["MLFLOW_TRACKING_URI"]


def open_client(root: Path) -> Any:
    """Return MLflow's client for a project; raises OSError where a server is named and nobody listens."""
    apply_default_settings(root)
    require_listener(tracking_uri(root))
    # Its schema set-up tells of every table.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri(root), registry_uri=tracking_uri(root))


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
