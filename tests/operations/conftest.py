"""A small project whose servers really run: Prefect, its worker and MLflow, on free ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from pipelines.servers.control import down, up
from pipelines.servers.processes import with_variable
from pipelines.servers.programs import OpsSettings
from pipelines.servers.schedule import register
from pipelines.servers.state import ProgramState, marker, read_state
from pipelines.stage import outdated_stages

ROOT = Path(__file__).parents[2]

STAGE = '''
"""A stage that logs to MLflow until a file `release` is there."""
import os
import time
from pathlib import Path

from lstfe.config import Config
from pipelines.tracking import training_run

word = Path("input.txt").read_text()
with Path("starts.txt").open("a") as starts:
    starts.write(f"{word} {os.getpid()}\\n")
state = Path(".work", "checkpoints", word)
state.mkdir(parents=True, exist_ok=True)
with training_run(Config(), train_key=word, state_dir=state, data_md5="0" * 32) as run:
    for iteration in range(1, 601):
        run.log({"loss": 1.0 / iteration}, iteration)
        if Path("release").exists():
            break
        time.sleep(0.2)
Path("logged.txt").write_text(f"{run.id} {iteration}")
Path("slow.txt").write_text(word)
'''
FLOW = """
from __future__ import annotations

from pathlib import Path

from prefect import flow

from pipelines.flows import run_stage


@flow(log_prints=True)
def slow() -> str:
    run_stage("slow", Path.cwd())
    return Path("slow.txt").read_text()
"""
DVC = "stages:\n  slow: {cmd: python stage.py, deps: [input.txt], outs: [slow.txt]}\n"
PREFECT = """
name: small
pull: null
deployments:
  - name: nightly
    entrypoint: flow.py:slow
    schedules: [{cron: "0 2 * * *", timezone: UTC}]
    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}
    work_pool: {name: lstfe, job_variables: {stream_output: false}}
"""


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens at just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]


def wait_for(what: Callable[[], object], *, seconds: float = 240, message: str) -> Any:
    """Return the first true value of `what`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if value := what():
                return value
        time.sleep(0.2)
    raise AssertionError(f"after {seconds} s: {message}")


@dataclass
class Servers:
    """A project under `lstfe ops up`, and what its Prefect server says."""

    root: Path
    settings: OpsSettings

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.settings.prefect_port}/api"

    def up(self) -> None:
        up(self.root, self.settings, report=lambda line: None)

    def program(self, name: str) -> ProgramState:
        state = read_state(self.root)
        assert state is not None
        return next(program for program in state.programs if program.name == name)

    def kill(self, name: str, *, is_alone: bool = False) -> None:
        """Kill a program, its children too unless it `is_alone`; wait until it was started again and answers."""
        before = self.program(name)
        assert before.pid is not None
        (os.kill if is_alone else os.killpg)(before.pid, signal.SIGKILL)
        self.wait_until_healthy(name, after=before.restarts + 1)

    def start_run(self, deployment: str) -> str:
        """Start a run of FLOW/DEPLOYMENT and return its id."""

        def start() -> dict[str, Any]:
            # On a busy machine a server just started may answer 503 for a moment.
            url = f"{self.api}/deployments/name/{deployment}"
            found = httpx.get(url, trust_env=False, timeout=60).raise_for_status().json()
            url = f"{self.api}/deployments/{found['id']}/create_flow_run"
            made: dict[str, Any] = (
                httpx.post(url, json={}, trust_env=False, timeout=60).raise_for_status().json()
            )
            return made

        return str(wait_for(start, message=f"the server takes no run of {deployment}")["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.api}/flow_runs/{run_id}", trust_env=False, timeout=30).raise_for_status()
        run: dict[str, Any] = answer.json()
        return run

    def artifact(self, run_id: str, key: str) -> str:
        """Return the flow run's artifact of that key."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}}
        answer = httpx.post(f"{self.api}/artifacts/filter", json=wanted, trust_env=False, timeout=30)
        (found,) = answer.raise_for_status().json()
        return str(found["data"])

    def wait_for_end(self, run_id: str, *, seconds: float = 240) -> dict[str, Any]:
        """Wait until the flow run has a final state."""
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        wait_for(
            lambda: self.run(run_id)["state_type"] in final,
            seconds=seconds,
            message=f"{run_id} has not ended",
        )
        return self.run(run_id)

    def wait_until_healthy(self, name: str, *, after: int) -> None:
        """Wait until a program has been started again and answers."""
        wait_for(
            lambda: self.program(name).restarts >= after and self.program(name).phase == "healthy",
            message=f"{name} is not back: {self.program(name)}",
        )

    def processes(self) -> list[str]:
        return [" ".join(process.cmdline()) for process in with_variable(*marker(self.root))]


@dataclass
class Operated(Servers):
    """The servers of a project whose one flow waits until it is released."""

    def start_flow(self, word: str) -> str:
        """Start a flow run whose stage has something to do, and wait until that stage runs."""
        (self.root / "release").unlink(missing_ok=True)
        (self.root / "input.txt").write_text(word)
        run_id = self.start_run("slow/nightly")
        wait_for(lambda: self.starts(word), message=f"stage of {word} has not started")
        return run_id

    def starts(self, word: str) -> list[int]:
        """Return the process ids of the stage's starts."""
        path = self.root / "starts.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == word]

    def release(self) -> None:
        (self.root / "release").touch()

    def assert_clean(self, word: str) -> None:
        assert (self.root / "slow.txt").read_text() == word
        assert outdated_stages(self.root) == []


_Kind = TypeVar("_Kind", bound=Servers)


@contextlib.contextmanager
def clean_environment(root: Path) -> Iterator[pytest.MonkeyPatch]:
    """Take away what the machine sets for these tools, with `root` as the current folder; undone after the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DVC_", "LSTFE_", "MLFLOW_", "PREFECT_")):
                patch.delenv(name)
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "2")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(root)
        yield patch


@contextlib.contextmanager
def running(kind: type[_Kind], root: Path, *, code: Path) -> Iterator[_Kind]:
    """Let a project's servers run on free ports with its flows registered; `code` is where these import from."""
    prefect, mlflow, worker = free_ports(3)
    settings = OpsSettings(prefect_port=prefect, mlflow_port=mlflow, worker_port=worker)
    with clean_environment(root) as patch:
        patch.setenv("PYTHONPATH", str(code))
        project = kind(root, settings)
        try:
            project.up()
            register(root)
            yield project
        finally:
            down(root)


def write_project(root: Path) -> None:
    """Write the small project into an empty folder, with git and DVC."""
    for name, text in {
        "stage.py": STAGE,
        "flow.py": FLOW,
        "dvc.yaml": DVC,
        "prefect.yaml": PREFECT,
        "input.txt": "nothing",
    }.items():
        (root / name).write_text(text)
    shutil.copytree(
        ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local")
    )
    for name in (".dvcignore", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """The small project with its servers up and its flow registered; all is ended afterwards."""
    root = tmp_path_factory.mktemp("operated").resolve()
    write_project(root)
    with running(Operated, root, code=ROOT) as project:
        yield project
