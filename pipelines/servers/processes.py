"""Processes by what they carry in their environment: a parent may be dead, an inherited variable is not."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterable

import psutil

_GONE = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess)


def with_variable(name: str, value: str, *, carrying: str | None = None) -> list[psutil.Process]:
    """Return this user's processes that carry `name=value` (and some variable `carrying`).

    Neither this process nor its ancestors are among them.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(*_GONE, OSError):
            if process.pid in own:
                continue
            environment = process.environ()
            if environment.get(name) == value and (carrying is None or carrying in environment):
                found.append(process)
    return found


def variable_of(process: psutil.Process, name: str) -> str | None:
    """Return what a variable of a process is; None where it has none, or is gone."""
    with contextlib.suppress(*_GONE, OSError):
        value: str | None = process.environ().get(name)
        return value
    return None


def end(processes: Iterable[psutil.Process], *, grace_seconds: float) -> int:
    """Ask each process to end (SIGTERM), wait, and kill what is left; return how many had to be killed."""
    asked = list(processes)
    for process in asked:
        with contextlib.suppress(*_GONE):
            process.terminate()
    _, stubborn = psutil.wait_procs(asked, timeout=grace_seconds)
    kill(stubborn)
    return len(stubborn)


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill each process."""
    killed = list(processes)
    for process in killed:
        with contextlib.suppress(*_GONE):
            process.kill()
    psutil.wait_procs(killed, timeout=5)


def runs_module(process: psutil.Process, package: str) -> bool:
    """Return whether the process was started as `python -m PACKAGE` or a module of it."""
    try:
        words = process.cmdline()
    except _GONE:
        return False
    return any(
        word == "-m" and (name == package or name.startswith(f"{package}."))
        for word, name in itertools.pairwise(words)
    )


def signal_group(pid: int, number: signal.Signals) -> None:
    """Send a signal to the process group that `pid` leads or led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process and its descendants, in MiB; 0 where it is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except _GONE:
        return 0.0
    total = 0
    for member in family:
        with contextlib.suppress(*_GONE):
            total += member.memory_info().rss
    return total / 2**20
