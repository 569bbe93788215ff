"""The Prefect flow over the same stages."""

from __future__ import annotations

import os
import shutil
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

ROOT = Path(__file__).parents[2]
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
    (scores.parent / "pictures").mkdir()
    for number in range(6):
        (scores.parent / "pictures" / f"0{number}_missed_a_000007.jpg").write_bytes(b"\xff\xd8 a picture")
    reproduce(toy)

    with get_client(sync_client=True) as client:
        artifacts = sorted(client.read_artifacts(), key=lambda artifact: artifact.created)
    newest = {artifact.key: str(artifact.data) for artifact in artifacts}
    assert "0.750" in newest["scores"]
    assert newest["misses"].count("](data:image/jpeg;base64,/9gg") == 4
    assert "04_missed" not in newest["misses"]
    assert '"outcome": "ran"' in newest["stages"]


def test_a_run_is_linked_to_its_page_where_a_server_shows_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.flows import run_link
    from pipelines.model_versions import ModelVersions

    run = SimpleNamespace(info=SimpleNamespace(experiment_id="3"))
    monkeypatch.setattr(ModelVersions, "_connect", lambda self: SimpleNamespace(get_run=lambda run_id: run))

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:5000/")
    assert run_link(tmp_path, "abc") == "[abc](http://127.0.0.1:5000/#/experiments/3/runs/abc)"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert run_link(tmp_path, "abc") == "abc"
    assert "MLflow was down" in run_link(tmp_path, None)


def test_a_run_is_named_without_a_link_while_the_server_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.flows import run_link

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert run_link(tmp_path, "abc") == "abc"


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


@pytest.fixture
def small(project: Path) -> Path:
    """A committed project with the parameters of this one and no data."""
    shutil.copy(ROOT / "params.yaml", project)
    names = [f"GIT_{role}_{part}" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")]
    for arguments in (["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        subprocess.run(
            ["git", *arguments], cwd=project, check=True, env=os.environ | dict.fromkeys(names, "nobody")
        )
    return project


def test_a_second_retraining_is_cancelled_and_says_who_is_at_it(small: Path) -> None:
    from pipelines.flows import retrain
    from pipelines.lock import hold_lock

    with hold_lock(small / ".work" / "retrain" / "lock", what="a test"):
        state = retrain(small, return_state=True)

    assert state.is_cancelled()
    assert f"running already (process {os.getpid()} since" in str(state.message)


def test_without_a_champion_there_is_nothing_to_evaluate_and_the_flow_says_so(small: Path) -> None:
    from pipelines.flows import evaluate_champion

    state = evaluate_champion(small, return_state=True)

    assert (state.is_completed(), state.name) == (True, "Nothing to compare")
    assert "there is no champion yet" in str(state.message)


def test_data_with_errors_fails_the_check_and_the_webhook_hears_of_it(
    small: Path, tiny_raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import flows

    told: list[tuple[str, str]] = []
    monkeypatch.setattr(flows, "notify", lambda root, event, message, **more: told.append((event, message)))
    for name in ("well", "broken"):
        shutil.copytree(tiny_raw, small / "data" / "raw" / name)
    next((small / "data" / "raw" / "broken" / "videos").iterdir()).unlink()

    state = flows.check_data(small, return_state=True)

    assert state.is_failed()
    assert [event for event, _ in told] == ["flow failed"]
    assert "broken: has errors" in told[0][1]
    assert (small / "artifacts" / "checked" / "well" / "report.html").is_file()


def test_a_worker_that_loads_the_flows_as_a_script_can_run_them(small: Path) -> None:
    """Prefect cannot resolve the names of annotations there: parameters must not be validated."""
    from prefect.flows import load_flow_from_entrypoint

    loaded = load_flow_from_entrypoint(f"{ROOT / 'pipelines' / 'flows.py'}:evaluate_champion")
    state = loaded(str(small), return_state=True)

    assert state.is_completed()


def test_a_worker_that_loads_the_flows_as_a_script_finds_the_packages_that_stages_are_named_after() -> None:
    """Prefect puts the script's folder first in sys.path, and in it lies deploy.py."""
    entrypoint = f"{ROOT / 'pipelines' / 'flows.py'}:retrain"
    code = (
        "from prefect.flows import load_flow_from_entrypoint\n"
        f"load_flow_from_entrypoint({entrypoint!r})\n"
        "import deploy.bundle\n"
        "print(deploy.bundle.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.stdout.splitlines()[-1:] == [str(ROOT / "deploy" / "bundle.py")], done.stderr
