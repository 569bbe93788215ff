"""Keeps programs running: starts them in order, asks after their health, starts again what ended or fell silent.

A program is a process group of its own. The supervisor ends on SIGTERM or SIGINT: the worker first, while the
servers can still take down what becomes of its flow runs.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import httpx

from lstfe.errors import UserError
from pipelines.servers.lost_runs import RUN_VARIABLE, put_back, recover
from pipelines.servers.processes import end, kill, runs_module, signal_group, variable_of, with_variable
from pipelines.servers.programs import WORK_POOL, OpsSettings, Program, plan
from pipelines.servers.state import (
    OpsState,
    ProgramState,
    answers,
    log_path,
    marker,
    remove_state,
    take_lock,
    write_state,
)

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.25
_EAGER_SECONDS, _CALM_SECONDS = 0.5, 5.0
_SETTLED_SECONDS = 60.0
"""A program that ran so long starts again at once the next time it ends."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_START_SECONDS = 300.0
_SILENT_SECONDS = 60.0
_GRACE_SECONDS = 45.0  # a stage that is told to stop has 25 seconds to save
_MAX_LOG_BYTES = 20 * 2**20


class Supervised:
    """One program and what is known of its process."""

    def __init__(self, program: Program, root: Path, prepare: Callable[[], None] | None = None) -> None:
        """`prepare` runs before each start; it may raise httpx.HTTPError to put the start off."""
        self.program = program
        self.state = ProgramState(name=program.name, address=program.address, settings=dict(program.settings))
        self._root, self._prepare = root, prepare
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._answered = self._asked = 0.0
        self._next_start = 0.0
        self._pause = _FIRST_PAUSE_SECONDS

    def tick(self, now: float, *, may_start: bool) -> None:
        """Start the program, look after it, or clean up after it, whatever its state asks for."""
        if self._process is None:
            if may_start and now >= self._next_start:
                self._start(now)
            return
        if self._process.poll() is not None:
            self._note_end(now)
        elif now - self._asked >= (_CALM_SECONDS if self.state.phase == "healthy" else _EAGER_SECONDS):
            self._ask(now)

    def stop(self) -> None:
        """End the program's process group and wait for it."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("%s: did not end within %.0f s, killed", self.program.name, _GRACE_SECONDS)
        self._signal(signal.SIGKILL)  # also helpers that outlived their leader
        self._process.wait()
        self._process = None
        self.state.phase, self.state.pid = "down", None

    def _start(self, now: float) -> None:
        try:
            if self._prepare is not None:
                self._prepare()
        except httpx.HTTPError as error:
            logger.warning("%s: not started yet (%s)", self.program.name, error)
            self._put_off(now)
            return
        log = log_path(self._root, self.program.name)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self.program.command,
                cwd=self._root,
                env=dict(self.program.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started = self._answered = now
        self.state.phase, self.state.pid = "starting", self._process.pid
        logger.info("%s: started, pid %d", self.program.name, self._process.pid)

    def _note_end(self, now: float) -> None:
        assert self._process is not None
        logger.warning("%s: ended with code %s", self.program.name, self._process.returncode)
        if not self.program.is_worker:
            # Helpers that outlived their leader would hold the port.
            signal_group(self._process.pid, signal.SIGKILL)
        if now - self._started >= _SETTLED_SECONDS:
            self._pause = _FIRST_PAUSE_SECONDS
        self._process = None
        self.state.phase, self.state.pid = "down", None
        self.state.restarts += 1
        self._put_off(now)

    def _put_off(self, now: float) -> None:
        self._next_start = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)

    def _ask(self, now: float) -> None:
        self._asked = now
        _shorten(log_path(self._root, self.program.name))
        if answers(self.program.health):
            self._answered = now
            self.state.phase = "healthy"
            return
        silent = now - self._answered
        if self.state.phase in ("healthy", "silent"):
            self.state.phase = "silent"
            limit = _SILENT_SECONDS
        else:
            limit = _START_SECONDS
        # A worker is silent while its server is away; ending it would end its flow runs.
        if silent > limit and not self.program.is_worker:
            logger.warning("%s: no answer for %.0f s, started again", self.program.name, silent)
            assert self._process is not None
            signal_group(self._process.pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self.program.is_worker:  # its group has the flow runs
            self._process.send_signal(number)
        else:
            signal_group(self._process.pid, number)


class Supervisor:
    """Runs the programs of one project until it is told to stop."""

    def __init__(self, root: Path, programs: Sequence[Program]) -> None:
        self._root = root
        self._programs = {item.name: Supervised(item, root, self._preparation(item)) for item in programs}
        self._stopped = False
        self._written: OpsState | None = None

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT, then end everything; UserError where another supervisor runs."""
        lock = take_lock(self._root)
        if lock is None:
            raise UserError(f"{self._root}: its servers run already; `lstfe ops status` shows them")
        with lock:
            if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, self._note_signal)
            try:
                while not self._stopped:
                    self._tick()
                    time.sleep(_TICK_SECONDS)
            finally:
                self._end_all()
                remove_state(self._root)

    def stop(self) -> None:
        """Make `run` end everything and return."""
        self._stopped = True

    def _tick(self) -> None:
        for item in self._programs.values():
            needed = self._programs[item.program.needs] if item.program.needs else None
            may_start = needed is None or needed.state.phase == "healthy"
            item.tick(time.monotonic(), may_start=may_start)
        state = OpsState(pid=os.getpid(), programs=[item.state for item in self._programs.values()])
        if self._written is None or asdict(state) != asdict(self._written):
            write_state(self._root, state)
            self._written = OpsState(
                pid=state.pid, programs=[ProgramState(**asdict(p)) for p in state.programs]
            )

    def _end_all(self) -> None:
        for item in self._programs.values():
            if item.program.is_worker:
                item.stop()
        # Flow runs are killed, their stages are asked: a run that is asked ends as crashed, for good, while one
        # that is lost is started again by the next `up`. A stage saves.
        flow_processes = with_variable(*marker(self._root), carrying=RUN_VARIABLE)
        run_ids = {variable_of(process, RUN_VARIABLE) for process in flow_processes}
        engines = [process for process in flow_processes if runs_module(process, "prefect")]
        kill(engines)
        end([process for process in flow_processes if process not in engines], grace_seconds=_GRACE_SECONDS)
        self._put_back(sorted(filter(None, run_ids)))
        for item in reversed(self._programs.values()):
            item.stop()
        end(with_variable(*marker(self._root)), grace_seconds=5)

    def _put_back(self, run_ids: Sequence[str]) -> None:
        """Tell somebody else's server of the flow runs that were ended; ours is asked by the next start."""
        for program in (item.program for item in self._programs.values()):
            if not run_ids or not _uses_another_server(program):
                continue
            try:
                put_back(self._root, program.environment, run_ids, logger.info)
            except httpx.HTTPError as error:
                logger.warning("Prefect was not told that flow runs were ended (%s)", error)

    def _preparation(self, program: Program) -> Callable[[], None] | None:
        if not program.is_worker or program.needs is None:
            return None  # the server is somebody else's, and so may be the runs
        api = program.environment["PREFECT_API_URL"]
        return lambda: recover(self._root, api, WORK_POOL, logger.info)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        logger.info("told to stop (signal %d)", number)
        self.stop()


def _uses_another_server(program: Program) -> bool:
    """Return whether a program is a worker whose Prefect server was there before us."""
    return program.is_worker and program.needs is None and "PREFECT_API_URL" in program.environment


def _shorten(log: Path) -> None:
    """Start the log anew when it has grown large; the one before is kept. Writers append, so they go on."""
    try:
        if log.stat().st_size > _MAX_LOG_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)
    except OSError:
        logger.debug("%s: cannot be shortened", log, exc_info=True)


def supervise(root: Path, settings: OpsSettings) -> None:
    """Run the supervisor in this process."""
    # Whoever started us in the background made us ignore SIGINT, and children would inherit that: Prefect's
    # servers turn SIGTERM into SIGINT and would then never end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Supervisor(root, plan(root, settings)).run()


if __name__ == "__main__":
    from pipelines.command import run_command

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run_command(lambda: supervise(Path(sys.argv[1]), OpsSettings(**json.loads(sys.argv[2]))))
