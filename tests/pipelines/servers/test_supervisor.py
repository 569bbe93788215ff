"""The supervisor with small programs of Python instead of servers."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lstfe.errors import UserError
from pipelines.servers import supervisor as supervisor_module
from pipelines.servers.lost_runs import RUN_VARIABLE
from pipelines.servers.processes import with_variable
from pipelines.servers.programs import OpsSettings, Program, plan
from pipelines.servers.state import ProgramState, is_supervised, marker, read_state, take_lock
from pipelines.servers.supervisor import Supervisor

WEB = (
    "import http.server as h, sys; h.HTTPServer(('127.0.0.1', int(sys.argv[1])), h.SimpleHTTPRequestHandler)"
)
SERVES = f"{WEB}.serve_forever()"


def program(name: str, code: str = SERVES, *, needs: str | None = None, is_worker: bool = False) -> Program:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return Program(
        name=name,
        command=(sys.executable, "-S", "-c", code, str(port)),
        environment=os.environ | {"MARK": "one of ours"},
        port=port,
        address="",
        health=f"http://127.0.0.1:{port}/",
        needs=needs,
        is_worker=is_worker,
    )


Run = Callable[..., Supervisor]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Run]:
    """Return a starter of supervisors, each in a thread that is ended after the test."""
    running: list[tuple[Supervisor, threading.Thread]] = []

    def start(*programs: Program) -> Supervisor:
        supervisor = Supervisor(tmp_path, programs)
        thread = threading.Thread(target=supervisor.run)
        thread.start()
        running.append((supervisor, thread))
        return supervisor

    yield start
    for supervisor, thread in running:
        supervisor.stop()
        thread.join(60)
        assert not thread.is_alive()


def seen(root: Path, name: str) -> ProgramState | None:
    state = read_state(root)
    return next((p for p in state.programs if p.name == name), None) if state else None


def wait_for(root: Path, name: str, is_wanted: Callable[[ProgramState], object]) -> ProgramState:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = seen(root, name)
        if found is not None and is_wanted(found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"not seen within 60 s: {seen(root, name)}")


def test_a_program_that_ends_is_started_again(tmp_path: Path, supervise: Run) -> None:
    supervise(program("web"))
    first = wait_for(tmp_path, "web", lambda p: p.phase == "healthy")

    os.kill(first.pid or 0, signal.SIGKILL)

    second = wait_for(tmp_path, "web", lambda p: p.restarts == 1 and p.phase == "healthy")
    assert second.pid != first.pid


def test_a_program_waits_for_the_one_it_needs(tmp_path: Path, supervise: Run) -> None:
    slow = program("slow", "import time; time.sleep(1.5)\n" + SERVES)
    supervise(slow, program("next", needs="slow"))

    wait_for(tmp_path, "slow", lambda p: p.phase == "starting")
    waiting = seen(tmp_path, "next")
    assert waiting is not None
    assert (waiting.phase, waiting.pid) == ("waiting", None)
    wait_for(tmp_path, "next", lambda p: p.phase == "healthy")


def test_a_program_that_never_starts_is_tried_less_and_less_often(tmp_path: Path, supervise: Run) -> None:
    begin = time.monotonic()
    supervise(program("broken", "raise SystemExit(3)"))

    wait_for(tmp_path, "broken", lambda p: p.restarts == 3)
    assert time.monotonic() - begin > 0.5 + 1.0
    assert "broken: ended with code 3" not in (tmp_path / ".work/ops/broken.log").read_text()


def test_the_helpers_of_a_killed_server_are_ended_and_those_of_a_worker_are_not(
    tmp_path: Path, supervise: Run
) -> None:
    helper = (
        "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "open('{name}', 'w').write(str(c.pid))\n"
    )
    names = {name: str(tmp_path / name) for name in ("server", "worker")}
    supervise(
        program("server", helper.format(name=names["server"]) + SERVES),
        program("worker", helper.format(name=names["worker"]) + SERVES, is_worker=True),
    )
    helpers = {}
    for name, path in names.items():
        found = wait_for(tmp_path, name, lambda p: p.phase == "healthy")
        helpers[name] = int(Path(path).read_text())
        os.kill(found.pid or 0, signal.SIGKILL)
        wait_for(tmp_path, name, lambda p: p.restarts == 1 and p.phase == "healthy")
    try:
        assert not _runs(helpers["server"])
        assert _runs(helpers["worker"])
    finally:
        os.kill(helpers["worker"], signal.SIGKILL)
        os.kill(int(Path(names["worker"]).read_text()), signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_end_takes_everything_along(tmp_path: Path, supervise: Run) -> None:
    supervisor = supervise(program("web"), program("worker", is_worker=True))
    pids = [wait_for(tmp_path, name, lambda p: p.phase == "healthy").pid or 0 for name in ("web", "worker")]

    supervisor.stop()
    deadline = time.monotonic() + 60
    while is_supervised(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert [pid for pid in pids if _runs(pid)] == []
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("is_own_server", [False, True])
def test_a_server_that_was_there_before_hears_of_the_flow_runs_that_were_ended(
    tmp_path: Path, supervise: Run, monkeypatch: pytest.MonkeyPatch, is_own_server: bool
) -> None:
    told: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        supervisor_module,
        "put_back",
        lambda root, environment, run_ids, report: told.append((environment["PREFECT_API_URL"], run_ids)),
    )
    monkeypatch.setattr(supervisor_module, "recover", lambda *arguments: None)
    # A worker whose flow run is a child of its own, as Prefect's are.
    command = "[sys.executable, '-S', '-c', 'import time; time.sleep(300)']"
    child = f"subprocess.Popen({command}, env=os.environ | {{{RUN_VARIABLE!r}: 'a'}})"
    code = f"import os, subprocess, sys\n{child}\n{SERVES}"
    worker = program("worker", code, needs="prefect" if is_own_server else None, is_worker=True)
    environment = {**worker.environment, "PREFECT_API_URL": "http://there/api"} | dict([marker(tmp_path)])
    supervisor = supervise(program("prefect"), dataclasses.replace(worker, environment=environment))
    wait_for(tmp_path, "worker", lambda p: p.phase == "healthy")

    supervisor.stop()
    deadline = time.monotonic() + 60
    while is_supervised(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert with_variable(*marker(tmp_path)) == []
    assert told == ([] if is_own_server else [("http://there/api", ["a"])])


def test_a_server_that_hears_nothing_keeps_nobody_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = program("worker", is_worker=True)
    silent = dataclasses.replace(worker, environment={"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    Supervisor(tmp_path, [silent])._put_back(["a"])


def test_a_second_supervisor_is_refused(tmp_path: Path) -> None:
    lock = take_lock(tmp_path)
    assert lock is not None
    with lock, pytest.raises(UserError, match="run already"):
        Supervisor(tmp_path, []).run()


def test_a_log_that_grew_large_is_begun_anew(
    tmp_path: Path, supervise: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.servers.supervisor._MAX_LOG_BYTES", 1000)
    supervise(program("web", "print('x' * 5000, flush=True)\n" + SERVES))

    wait_for(tmp_path, "web", lambda p: p.phase == "healthy")
    logs = tmp_path / ".work" / "ops"
    assert (logs / "web.log.1").stat().st_size > 5000
    assert (logs / "web.log").stat().st_size < 1000


def test_what_the_user_has_already_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> list[str]:
        return [item.name for item in plan(tmp_path, OpsSettings(serve=True))]

    assert names() == ["prefect", "mlflow", "worker", "service"]
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    assert names() == ["mlflow", "worker", "service"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert names() == ["worker", "service"]
    (worker, service) = plan(tmp_path, OpsSettings(serve=True))
    assert worker.environment["PREFECT_API_URL"] == "http://prefect:4200/api"
    assert worker.needs is None
    assert service.environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"


def test_the_worker_and_its_flows_are_told_of_the_servers(tmp_path: Path) -> None:
    prefect, mlflow, worker = plan(tmp_path, OpsSettings(prefect_port=4201, mlflow_port=5001))

    assert worker.environment["PREFECT_API_URL"] == "http://127.0.0.1:4201/api"
    assert worker.environment["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5001"
    assert "PREFECT_API_URL" not in prefect.environment
    assert "http://127.0.0.1:5001" not in mlflow.environment.values()
    assert worker.needs == "prefect"
    assert f"sqlite:///{tmp_path}/.work/mlflow.db" in mlflow.command
