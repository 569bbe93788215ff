"""Which programs `lstfe ops up` runs, and how each is started.

What the user has already (PREFECT_API_URL, MLFLOW_TRACKING_URI) is used and not started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.environment import child_environment
from pipelines.servers.state import marker

HOST = "127.0.0.1"
"""Neither Prefect's nor MLflow's server asks who one is, so they are for this machine alone."""
WORK_POOL = "lstfe"


@dataclass(frozen=True, kw_only=True, slots=True)
class OpsSettings:
    """Where the servers listen and what else runs."""

    prefect_port: int = 4200
    mlflow_port: int = 5000
    worker_port: int = 8080
    """The worker's own health page."""
    serve: bool = False
    """Also run `lstfe serve`."""
    serve_port: int = 8700


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A program that runs until it is told to stop."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    address: str
    """Where its page is."""
    health: str
    """URL that answers with 200 when all is well."""
    needs: str | None = None
    """Name of a program that must be healthy before this one starts."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that make commands use it."""
    is_worker: bool = False
    """Its children are flow runs, which outlive it: they are not ended with it, and it is not ended for silence."""


def plan(root: Path, settings: OpsSettings) -> list[Program]:
    """Return the programs in the order of their start."""
    base = child_environment(root, dict([marker(root)]))
    # Settings of servers that answered a moment ago are not this start's.
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        base.pop(name, None)
        if name in os.environ:
            base[name] = os.environ[name]
    programs: list[Program] = []
    used: dict[str, str] = {}
    if "PREFECT_API_URL" not in base:
        programs.append(prefect_server(base, settings.prefect_port))
        used |= programs[-1].settings
    if "MLFLOW_TRACKING_URI" not in base:
        programs.append(_mlflow(root, base, settings.mlflow_port))
        used |= programs[-1].settings
    needs = "prefect" if "PREFECT_API_URL" in used else None
    programs.append(_worker(base | used, settings.worker_port, needs))
    if settings.serve:
        programs.append(_service(base | used, settings.serve_port))
    return programs


def prefect_server(base: Mapping[str, str], port: int) -> Program:
    """Return Prefect's server on that port, with the environment `base`."""
    address = f"http://{HOST}:{port}"
    return Program(
        name="prefect",
        command=_module("prefect", "server", "start", "--host", HOST, "--port", str(port)),
        environment={
            **base,
            # By default in memory: a server that was restarted would end running flows at their next renewal.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            # Its pages would ask the default port.
            "PREFECT_SERVER_UI_API_URL": f"{address}/api",
        },
        port=port,
        address=address,
        health=f"{address}/api/health",
        settings={"PREFECT_API_URL": f"{address}/api"},
    )


def _module(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


def _mlflow(root: Path, base: Mapping[str, str], port: int) -> Program:
    address = f"http://{HOST}:{port}"
    # The same database and folder as without a server, so that `ops down` takes no run away.
    store, artifacts = root / ".work" / "mlflow.db", root / ".work" / "mlartifacts"
    command = _module(
        "mlflow",
        "server",
        *("--host", HOST, "--port", str(port)),
        # The default of 4 workers and a job runner takes 2 GB.
        *("--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{store}"),
        *("--default-artifact-root", artifacts.as_uri(), "--no-serve-artifacts"),
    )
    return Program(
        name="mlflow",
        command=command,
        environment={**base, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        port=port,
        address=address,
        health=f"{address}/health",
        settings={"MLFLOW_TRACKING_URI": address},
    )


def _worker(base: Mapping[str, str], port: int, needs: str | None) -> Program:
    command = _module(
        *("prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process"),
        *("--name", WORK_POOL, "--with-healthcheck"),
    )
    return Program(
        name="worker",
        command=command,
        environment={
            **base,
            "PREFECT_WORKER_WEBSERVER_HOST": HOST,
            "PREFECT_WORKER_WEBSERVER_PORT": str(port),
        },
        port=port,
        address="",
        health=f"http://{HOST}:{port}/health",
        needs=needs,
        is_worker=True,
    )


def _service(base: Mapping[str, str], port: int) -> Program:
    address = f"http://{HOST}:{port}"
    return Program(
        name="service",
        command=_module("pipelines.cli", "serve", "--host", HOST, "--port", str(port)),
        environment=dict(base),
        port=port,
        address=address,
        # Without a champion the service is there and not ready: that is no reason to restart it.
        health=f"{address}/healthz",
    )
