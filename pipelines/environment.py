"""Environment variables of every process started here; MLflow and Prefect read them when imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pipelines.paths import main_root
from pipelines.servers.state import answering_settings


def default_settings(root: Path) -> dict[str, str]:
    """Settings unless the user set them: nothing leaves the machine, stores lie in the main work tree.

    While the servers of `lstfe ops up` answer, they are used; they keep the same stores.
    """
    return {
        "DVC_NO_ANALYTICS": "1",
        # MLflow takes the word `true` only, Prefect any of them.
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / '.work' / 'mlflow.db'}",
        # The default of 7 retries waits four minutes for a server that is down, at every call.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "PREFECT_HOME": str(root / ".prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        # The default of 20 seconds is too short for a busy machine.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        **answering_settings(root),
    }


def apply_default_settings(root: Path | None = None) -> None:
    """Give this process the settings of a project, the main work tree's unless given.

    Call it before mlflow or prefect is imported.
    """
    for name, value in default_settings(root or main_root()).items():
        os.environ.setdefault(name, value)


def child_environment(root: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child process whose `python` is this very interpreter."""
    # DVC runs `python -m pipelines.train` through a shell, so the right python must come first in PATH.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    fixed = {"PATH": path, "PYTHONUNBUFFERED": "1", **(extra or {})}
    return default_settings(root) | os.environ | fixed
