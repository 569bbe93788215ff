"""Servers killed in the middle of a flow run: after their restart the run completes, and nothing is left over."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from pipelines.servers.control import down, status
from pipelines.servers.lost_runs import RUN_VARIABLE
from pipelines.servers.processes import with_variable
from pipelines.servers.state import answering_settings, is_supervised, read_state

from .conftest import Operated, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_killed_prefect_server_costs_the_flow_run_nothing(operated: Operated) -> None:
    run = operated.start_flow("server")

    operated.kill("prefect")
    operated.release()

    assert operated.wait_for_end(run)["state_type"] == "COMPLETED"
    assert len(operated.starts("server")) == 1
    operated.assert_clean("server")


def test_a_killed_mlflow_server_is_told_everything_when_it_is_back(operated: Operated) -> None:
    from mlflow import MlflowClient

    run = operated.start_flow("tracker")

    operated.kill("mlflow")
    operated.release()

    assert operated.wait_for_end(run)["state_type"] == "COMPLETED"
    operated.assert_clean("tracker")
    run_id, iterations = (operated.root / "logged.txt").read_text().split()
    points = MlflowClient(f"sqlite:///{operated.root}/.work/mlflow.db").get_metric_history(run_id, "loss")
    assert [point.step for point in points] == list(range(1, int(iterations) + 1))


def test_a_flow_run_outlives_its_killed_worker(operated: Operated) -> None:
    run = operated.start_flow("worker")

    operated.kill("worker", is_alone=True)
    operated.release()

    assert operated.wait_for_end(run)["state_type"] == "COMPLETED"
    assert len(operated.starts("worker")) == 1
    operated.assert_clean("worker")


def test_a_flow_run_killed_with_its_worker_is_started_again(operated: Operated) -> None:
    run = operated.start_flow("both")
    (stage,) = operated.starts("both")
    flows = [p for p in with_variable(RUN_VARIABLE, run) if "dvc" not in p.cmdline() and p.pid != stage]
    before = operated.program("worker")

    for process in (psutil.Process(before.pid), *flows):
        if process.pid not in (os.getpid(), stage):
            process.kill()
    wait_for(lambda: len(operated.starts("both")) == 2, message="the stage has not started again")
    operated.release()

    end = operated.wait_for_end(run)
    assert (end["state_type"], end["run_count"]) == ("COMPLETED", 2)
    assert not psutil.pid_exists(stage), "the lost run's stage went on beside the new one"
    operated.assert_clean("both")


def test_everything_killed_at_once_comes_up_again_and_goes_on(operated: Operated) -> None:
    run = operated.start_flow("power")
    state = read_state(operated.root)
    assert state is not None

    os.kill(state.pid, signal.SIGKILL)
    for process in with_variable("LSTFE_OPS", str(operated.root)):
        process.kill()
    wait_for(lambda: not is_supervised(operated.root), message="the lock outlived its holder")
    assert answering_settings(operated.root) == {}
    operated.up()
    wait_for(lambda: len(operated.starts("power")) == 2, message="the stage has not started again")
    operated.release()

    assert operated.wait_for_end(run)["state_type"] == "COMPLETED"
    operated.assert_clean("power")


def test_down_ends_flow_runs_too_and_up_finishes_them(operated: Operated) -> None:
    run = operated.start_flow("down")
    begin = time.monotonic()

    assert down(operated.root)
    assert operated.processes() == []
    assert time.monotonic() - begin < 60
    assert not down(operated.root)
    assert "nothing runs" in status(operated.root)[0]

    operated.up()
    wait_for(lambda: len(operated.starts("down")) == 2, message="the stage has not started again")
    operated.release()
    assert operated.wait_for_end(run)["state_type"] == "COMPLETED"
    operated.assert_clean("down")
