"""A Prefect server for as long as one command takes, where none is there.

Prefect's own ephemeral server belongs to one process: each worker of a task runner would start another one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lstfe.errors import UserError
from pipelines.environment import default_settings
from pipelines.servers.processes import signal_group
from pipelines.servers.programs import HOST, prefect_server
from pipelines.servers.state import answers

_START_SECONDS = 300.0
_GRACE_SECONDS = 20.0
_POLL_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextlib.contextmanager
def some_prefect_server(root: Path) -> Iterator[None]:
    """Give this process and its children a Prefect server; `root` holds its database, in `.prefect`.

    It is the one of PREFECT_API_URL or of `lstfe ops up`, else one that ends with the block, by whose end
    Prefect's logs and events must be sent. Enter it before prefect is imported. Raises UserError where the server
    does not start.
    """
    for name, value in default_settings(root).items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" in os.environ:
        yield
        return
    program = prefect_server(dict(os.environ), _free_port())
    log = Path(os.environ["PREFECT_HOME"]) / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            program.command,
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        _wait(child, program.health, log)
        os.environ.update(program.settings)
        yield
    finally:
        for name in program.settings:
            os.environ.pop(name, None)
        signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
        signal_group(child.pid, signal.SIGKILL)
        child.wait()


def _wait(child: subprocess.Popen[bytes], health: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers(health):
        if child.poll() is not None:
            raise UserError(f"Prefect's server ended with code {child.returncode}; {log} says why")
        if time.monotonic() > deadline:
            raise UserError(f"Prefect's server does not answer after {_START_SECONDS:.0f} s; see {log}")
        time.sleep(_POLL_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _end_with_parent() -> None:
    # SIGINT may be ignored where we were started in the background, and the server turns SIGTERM into it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
