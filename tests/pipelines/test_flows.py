"""The Prefect flow over the same stages."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.command import StageError
from pipelines.environment import child_environment

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


def _tries_of(task_name: str) -> dict[object, tuple[str | None, int]]:
    """Final state and number of tries, by id, of every run of a task that the server has."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(limit=200)
    return {run.id: (run.state_name, run.run_count) for run in runs if run.name == task_name}


def test_a_project_without_stages_is_done_at_once(project: Path) -> None:
    from pipelines.flows import reproduce

    assert reproduce(project) == {}


def test_the_flow_runs_only_what_dvc_finds_changed(toy: Path) -> None:
    from pipelines.flows import reproduce
    from pipelines.stage import outdated_stages

    assert reproduce(toy) == {"a": True, "b": True, "c": True}

    (toy / "a.txt").unlink()
    (toy / "dvc.yaml").write_text((toy / "dvc.yaml").read_text().replace("cat b.txt >", "cat b.txt b.txt >"))
    assert reproduce(toy) == {"a": True, "b": False, "c": True}
    assert outdated_stages(toy) == []


def test_a_failed_stage_fails_the_flow_without_a_retry_or_a_traceback(
    toy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from pipelines.flows import reproduce

    (toy / "broken").touch()
    before = _tries_of("c")

    with pytest.raises(StageError, match="stage c failed"):
        reproduce(toy)

    assert [tries for run, tries in _tries_of("c").items() if run not in before] == [("Failed", 1)]
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("exit_code", "is_retried"), [(75, True), (2, False), (1, False)])
def test_only_a_network_fault_is_worth_a_retry(exit_code: int, is_retried: bool) -> None:
    from pipelines.flows import is_temporary

    error = StageError("stage train failed", exit_code=exit_code)
    state: Any = SimpleNamespace(result=lambda raise_on_failure: error)

    assert is_temporary(None, None, state) is is_retried


def test_the_artifacts_show_stages_and_scores(toy: Path) -> None:
    from prefect.client.orchestration import get_client

    from pipelines.flows import reproduce

    (toy / "dvc.yaml").write_text("stages: {a: {cmd: 'true'}}\n")
    scores = toy / "artifacts" / "evaluated" / "metrics.json"
    scores.parent.mkdir(parents=True)
    scores.write_text('{"voc07": {"AP50": 0.75}}')
    reproduce(toy)

    with get_client(sync_client=True) as client:
        artifacts = sorted(client.read_artifacts(), key=lambda artifact: artifact.created)
    newest = {artifact.key: str(artifact.data) for artifact in artifacts}
    assert "0.750" in newest["scores"]
    assert '"outcome": "ran"' in newest["stages"]


def test_a_terminated_flow_leaves_no_stage_running(toy: Path) -> None:
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import SubprocessASGIServer

    (toy / "dvc.yaml").write_text("stages: {a: {cmd: 'echo $$ > pid; exec sleep 120'}}\n")
    address = PREFECT_API_URL.value() or SubprocessASGIServer._instances[None].api_url
    code = (
        "from pathlib import Path\n"
        "from pipelines.command import run_command\n"
        "from pipelines.demo import reproduce_stages\n"
        f"run_command(lambda: reproduce_stages(Path({str(toy)!r})))"
    )
    environment = child_environment(
        toy, {"PREFECT_API_URL": address, "PYTHONPATH": str(Path(__file__).parents[2])}
    )
    flow = subprocess.Popen([sys.executable, "-c", code], cwd=toy, env=environment)
    pid_file = toy / "pid"
    while not (pid_file.exists() and pid_file.read_text().strip()):
        assert flow.poll() is None, "the flow ended before its stage began"
        time.sleep(0.1)
    flow.send_signal(signal.SIGTERM)
    flow.wait(60)

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
