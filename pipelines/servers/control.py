"""`lstfe ops up`, `status` and `down`: start the supervisor, look at it, end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import psutil

from lstfe.errors import UserError
from pipelines.servers.processes import end, memory_mib, with_variable
from pipelines.servers.programs import HOST, OpsSettings, Program, plan
from pipelines.servers.state import (
    OpsState,
    is_supervised,
    log_path,
    marker,
    ops_dir,
    read_state,
    remove_state,
)
from pipelines.tables import text_table

WAIT_SECONDS = 300.0
_POLL_SECONDS = 0.2
_END_SECONDS = 120.0
_PORT_SECONDS = 5.0
_HOPELESS_RESTARTS = 4


def up(root: Path, settings: OpsSettings, *, report: Callable[[str], None]) -> OpsState:
    """Start the servers and wait until all are healthy; where they run already, only wait.

    Raises UserError for a port that is taken and for a program that does not become healthy; then nothing is
    left running.
    """
    if not is_supervised(root):
        _end_leftovers(root)
        for program in plan(root, settings):
            _require_free(program)
        _start_supervisor(root, settings)
    return _wait_until_healthy(root, report)


def status(root: Path) -> tuple[str, bool]:
    """Return a table of what runs, and whether all is healthy."""
    state = read_state(root)
    if state is None or not is_supervised(root):
        return "nothing runs; `lstfe ops up` starts the servers", False
    rows = [
        [
            program.name,
            program.phase,
            str(program.pid or "-"),
            program.address or "-",
            f"{memory_mib(program.pid):.0f} MiB" if program.pid else "-",
            str(program.restarts),
        ]
        for program in state.programs
    ]
    table = text_table(("program", "state", "pid", "address", "memory", "restarts"), rows)
    return f"{table}\nsupervisor: pid {state.pid}, logs in {ops_dir(root)}", state.is_healthy


def down(root: Path) -> bool:
    """End the servers, their flow runs and these runs' stages; return whether there was anything to end."""
    was_up = is_supervised(root)
    state = read_state(root)
    if was_up and state is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(state.pid, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while is_supervised(root) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if is_supervised(root):
            os.kill(state.pid, signal.SIGKILL)
    return _end_leftovers(root) or was_up


def _end_leftovers(root: Path) -> bool:
    """End what a killed supervisor left behind."""
    left = with_variable(*marker(root))
    end(left, grace_seconds=30)
    remove_state(root)
    return bool(left)


def _require_free(program: Program) -> None:
    """Raise UserError for a port that stays taken; that of a process just killed is free a moment later."""
    deadline = time.monotonic() + _PORT_SECONDS
    while not _is_free(program.port):
        if time.monotonic() > deadline:
            raise UserError(
                f"port {program.port} for {program.name} is taken{_owner(program.port)}; end that, or give "
                f"another port with --{program.name}-port"
            )
        time.sleep(_POLL_SECONDS)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass  # some systems tell only root
    return ""


def _start_supervisor(root: Path, settings: OpsSettings) -> None:
    ops_dir(root).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pipelines.servers.supervisor", str(root), json.dumps(asdict(settings))]
    with log_path(root, "supervisor").open("ab") as log:
        child = subprocess.Popen(
            command,
            cwd=root,
            # Only what the user set: the defaults would look like servers that the user has already.
            env=os.environ | dict([marker(root)]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while not is_supervised(root):
        if child.poll() is not None:
            raise UserError(f"the supervisor ended at once: {_last_line(log_path(root, 'supervisor'))}")
        time.sleep(_POLL_SECONDS)


def _wait_until_healthy(root: Path, report: Callable[[str], None]) -> OpsState:
    deadline = time.monotonic() + WAIT_SECONDS
    told: set[str] = set()
    while time.monotonic() < deadline:
        state = read_state(root)
        if not is_supervised(root):
            raise UserError(f"the supervisor ended: {_last_line(log_path(root, 'supervisor'))}")
        for program in state.programs if state else []:
            if program.phase == "healthy" and program.name not in told:
                told.add(program.name)
                report(f"{program.name:8} healthy  {program.address}")
            if program.restarts >= _HOPELESS_RESTARTS:
                down(root)
                log = log_path(root, program.name)
                raise UserError(f"{program.name} ends as soon as it starts: {_last_line(log)} ({log})")
        if state is not None and state.is_healthy:
            return state
        time.sleep(_POLL_SECONDS)
    down(root)
    raise UserError(f"not healthy within {WAIT_SECONDS:.0f} s, ended again; the logs are in {ops_dir(root)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")
