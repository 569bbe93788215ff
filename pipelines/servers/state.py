"""What the supervisor says about its programs, in `.work/ops/state.json`, and where its files lie.

Read at the start of every command (pipelines/environment.py), so nothing heavy is imported here.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import urlsplit

Phase = Literal["waiting", "starting", "healthy", "silent", "down"]
"""waiting: for another program; silent: runs, but no longer answers; down: ended, will be started again."""

_PROBE_SECONDS = 0.5
_ANSWER_SECONDS = 5.0
_LOCK_TRIES, _LOCK_PAUSE_SECONDS = 20, 0.05


@dataclass(kw_only=True, slots=True)
class ProgramState:
    """One program as the supervisor last saw it."""

    name: str
    phase: Phase = "waiting"
    pid: int | None = None
    address: str = ""
    """Where its page or its API is; empty for a program without one."""
    restarts: int = 0
    """Starts after the first."""
    settings: dict[str, str] = field(default_factory=dict)
    """Environment variables that make commands use it."""


@dataclass(kw_only=True, slots=True)
class OpsState:
    """The supervisor and its programs."""

    pid: int
    programs: list[ProgramState]

    @property
    def is_healthy(self) -> bool:
        """Return whether every program runs and answers."""
        return all(program.phase == "healthy" for program in self.programs)


def ops_dir(root: Path) -> Path:
    """Return the folder of the supervisor's state and logs."""
    return root / ".work" / "ops"


def log_path(root: Path, name: str) -> Path:
    """Return the log of a program (or of the supervisor)."""
    return ops_dir(root) / f"{name}.log"


def read_state(root: Path) -> OpsState | None:
    """Return what the supervisor last wrote, None where there is nothing to read."""
    try:
        values: dict[str, Any] = json.loads((ops_dir(root) / "state.json").read_text(encoding="utf-8"))
        programs = [ProgramState(**program) for program in values["programs"]]
        return OpsState(pid=int(values["pid"]), programs=programs)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(root: Path, state: OpsState) -> None:
    """Replace the state, so that a reader never sees half of one."""
    path = ops_dir(root) / "state.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def remove_state(root: Path) -> None:
    """Forget the programs: nothing runs any more."""
    (ops_dir(root) / "state.json").unlink(missing_ok=True)


def take_lock(root: Path) -> IO[str] | None:
    """Take the supervisor's lock, None where another one has it; the kernel gives it back when we end."""
    ops_dir(root).mkdir(parents=True, exist_ok=True)
    for _ in range(_LOCK_TRIES):  # a command that looks whether there is a supervisor holds it for a moment
        if (lock := _lock(root, fcntl.LOCK_EX)) is not None:
            return lock
        time.sleep(_LOCK_PAUSE_SECONDS)
    return None


def is_supervised(root: Path) -> bool:
    """Return whether a supervisor runs for this project."""
    if not (ops_dir(root) / "lock").is_file():
        return False
    lock = _lock(root, fcntl.LOCK_SH)
    if lock is not None:
        lock.close()
    return lock is None


def _lock(root: Path, kind: int) -> IO[str] | None:
    lock = (ops_dir(root) / "lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


def answering_settings(root: Path) -> dict[str, str]:
    """Return the environment variables of the servers that are up and answer at this moment."""
    state = read_state(root)
    if state is None or not is_supervised(root):
        return {}
    settings: dict[str, str] = {}
    for program in state.programs:
        if program.settings and program.phase == "healthy" and listens(program.address):
            settings |= program.settings
    return settings


def listens(address: str) -> bool:
    """Return whether somebody accepts connections at an http address."""
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=_PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    """Return whether the address answers with 2xx."""
    from urllib.request import ProxyHandler, build_opener  # takes a while, and most commands ask nothing

    try:
        # Without proxies: they would be asked for this machine's own addresses.
        with build_opener(ProxyHandler({})).open(url, timeout=_ANSWER_SECONDS) as response:
            return 200 <= int(response.status) < 300
    except (OSError, ValueError):
        return False


def marker(root: Path) -> tuple[str, str]:
    """Return the environment variable that everything started by this project's supervisor carries."""
    return "LSTFE_OPS", os.fspath(root.resolve())
