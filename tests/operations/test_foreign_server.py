"""A worker on a Prefect server that is not of its own supervisor: what becomes of a flow run when it is stopped."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from pipelines.environment import child_environment
from pipelines.servers.control import down, up
from pipelines.servers.processes import signal_group
from pipelines.servers.programs import OpsSettings, prefect_server
from pipelines.servers.schedule import register
from pipelines.servers.state import answers

from .conftest import ROOT, Operated, clean_environment, free_ports, wait_for, write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_flow_run_that_is_stopped_with_its_worker_waits_for_the_next_one(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    write_project(root)
    port, mlflow, worker = free_ports(3)
    with clean_environment(root) as patch, (root / "server.log").open("wb") as log:
        patch.setenv("PYTHONPATH", str(ROOT))
        server = prefect_server(child_environment(root), port)
        process = subprocess.Popen(
            server.command, env=dict(server.environment), stdout=log, stderr=log, start_new_session=True
        )
        project = Operated(root, OpsSettings(prefect_port=port, mlflow_port=mlflow, worker_port=worker))
        try:
            wait_for(lambda: answers(server.health), message="Prefect does not answer")
            patch.setenv("PREFECT_API_URL", f"{server.address}/api")
            project.up()
            register(root)
            run = project.start_flow("word")

            assert down(root)
            assert project.processes() == []
            stopped = project.run(run)
            assert (stopped["state_type"], stopped["state_name"]) == ("SCHEDULED", "AwaitingRetry")

            up(root, project.settings, report=lambda line: None)
            wait_for(lambda: len(project.starts("word")) == 2, message="the stage has not started again")
            project.release()
            assert project.wait_for_end(run)["state_type"] == "COMPLETED"
            project.assert_clean("word")
        finally:
            down(root)
            signal_group(process.pid, signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                signal_group(process.pid, signal.SIGKILL)
                process.wait()
