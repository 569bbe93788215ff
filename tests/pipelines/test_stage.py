"""DVC from Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lstfe.errors import UserError
from lstfe.training.stop import PREEMPTED
from pipelines.command import TEMPORARY_FAILURE, StageError
from pipelines.stage import bring_up_to_date, outdated_stages, run_group, stage_order


def _bring_all(root: Path) -> dict[str, bool]:
    return {
        stage: bring_up_to_date(stage, root=root, report=lambda line: None) for stage in stage_order(root)
    }


def test_a_project_without_stages_has_nothing_to_do(project: Path) -> None:
    assert stage_order(project) == []
    assert outdated_stages(project) == []


def test_stages_come_after_what_they_need_however_dvc_yaml_lists_them(toy: Path) -> None:
    assert stage_order(toy) == ["a", "b", "c"]


def test_stages_run_once_and_only_those_whose_inputs_changed_run_again(toy: Path) -> None:
    assert outdated_stages(toy) == ["c", "b", "a"]
    assert _bring_all(toy) == {"a": True, "b": True, "c": True}
    assert outdated_stages(toy) == []

    (toy / "c.txt").unlink()
    assert outdated_stages(toy) == ["c"]
    assert bring_up_to_date("b", root=toy, report=lambda line: None) is False
    assert bring_up_to_date("c", root=toy, report=lambda line: None) is True

    (toy / "params.yaml").write_text("word: two\n")
    assert outdated_stages(toy) == ["a"]


def test_a_failed_stage_is_named_with_its_exit_code(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages: {a: {cmd: 'echo error: no such weights; exit 2'}}\n")
    lines: list[str] = []

    with pytest.raises(StageError, match="stage a failed: no such weights") as failed:
        bring_up_to_date("a", root=toy, report=lines.append)

    assert failed.value.exit_code == 2
    assert "error: no such weights" in lines


def test_a_preempted_training_is_a_failed_stage_that_hands_on_its_own_code(toy: Path) -> None:
    (toy / "dvc.yaml").write_text(f"stages: {{a: {{cmd: 'exit {PREEMPTED}'}}}}\n")

    with pytest.raises(StageError, match="stage a failed") as failed:
        bring_up_to_date("a", root=toy, report=lambda line: None)

    assert failed.value.exit_code == PREEMPTED
    assert PREEMPTED not in (0, TEMPORARY_FAILURE), "neither success nor something to try again at once"


def test_a_broken_dvc_yaml_is_the_users_to_mend(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {a: {comd: echo}}\n")

    with pytest.raises(UserError, match=r"DVC says"):
        stage_order(project)


def test_an_interruption_ends_the_whole_group_and_leaves_no_orphan(tmp_path: Path) -> None:
    grandchild = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    command = [
        sys.executable,
        "-c",
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])",
    ]
    seen: list[int] = []

    def interrupt(line: str) -> None:
        if line.isdecimal():
            seen.append(int(line))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_group(command, cwd=tmp_path, env=os.environ, report=interrupt)

    assert _is_gone(seen[0])


def test_a_member_that_ignores_signals_is_killed_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.stage._GRACE_SECONDS", 0.2)
    stubborn = (
        "import os, signal, time\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)\n"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    seen: list[int] = []

    def interrupt(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_group([sys.executable, "-c", stubborn], cwd=tmp_path, env=os.environ, report=interrupt)

    assert _is_gone(seen[0])


def test_a_terminated_caller_takes_its_running_stage_along(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages: {a: {cmd: 'echo $$ > pid; exec sleep 60'}}\n")
    code = (
        "from pathlib import Path\n"
        "from pipelines.command import run_command\n"
        "from pipelines.stage import bring_up_to_date\n"
        f"run_command(lambda: bring_up_to_date('a', root=Path({str(toy)!r}), report=print))"
    )
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    pid_file = toy / "pid"
    while not (pid_file.exists() and pid_file.read_text().strip()):
        time.sleep(0.05)
    caller.send_signal(signal.SIGTERM)

    assert caller.wait(30) == 143
    assert _is_gone(int(pid_file.read_text()))


def _is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if _is_zombie(pid):
            return True
        time.sleep(0.05)
    return False


def _is_zombie(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return state.startswith("Z")
