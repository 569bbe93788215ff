"""DVC from Python: the order of the stages, what is out of date, and one stage as a child process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from lstfe.errors import UserError
from pipelines.command import StageError
from pipelines.environment import child_environment

Report = Callable[[str], None]
"""Takes one line of output, without its end."""

_GRACE_SECONDS = 25.0  # a training ends its update and saves; a Prefect worker kills us after 30
_UP_TO_DATE = re.compile(r"^Stage '.*' didn't change, skipping")
# What DVC says after each stage about git and remotes.
_HINT = re.compile(
    r"^(To track the changes with git|To enable auto staging|\tgit add|\tdvc config|Use `dvc push`|$)"
)
_EXIT_CODE = re.compile(r"exited with (\d+)")


def stage_order(root: Path) -> list[str]:
    """Return the names of all stages, each after the stages it needs, from DVC's own graph."""
    with _repository(root) as repo:
        graph = repo.index.graph
        stages = [stage for stage in repo.index.stages if stage.cmd]
        needed = {_name(s): [_name(n) for n in graph.successors(s) if n.cmd] for s in stages}
    return list(TopologicalSorter(needed).static_order())


def needed_stages(root: Path, *goals: str) -> list[str]:
    """Return stages and all that they need, in the order of DVC's graph."""
    with _repository(root) as repo:
        graph = repo.index.graph
        waiting = [stage for stage in repo.index.stages if _name(stage) in goals]
        found: set[str] = set()
        while waiting:
            stage = waiting.pop()
            found.add(_name(stage))
            waiting += list(graph.successors(stage))
    return [stage for stage in stage_order(root) if stage in found]


def output_of_stage(root: Path, path: Path) -> tuple[str, str] | None:
    """Return which stage writes `path` (relative to root), and what is there; None where no stage does.

    `unchanged`: as dvc.lock says; `modified`: somebody changed it; `absent`; `unknown`: dvc.lock does not say.
    """
    with _repository(root) as repo:
        for stage in repo.index.stages:
            for out in stage.outs if stage.cmd else ():
                if Path(str(out.fs_path)) == (root / path).resolve():
                    return _name(stage), _state_of(out)
    return None


def _name(stage: Any) -> str:
    return _without_folder(str(stage.addressing))


def _without_folder(address: str) -> str:
    """Return a stage's name: outside of the project's folder DVC puts the path of dvc.yaml before it."""
    return address.rpartition(":")[2]


def _state_of(out: Any) -> str:
    if not out.exists:
        return "absent"
    if not out.hash_info:
        return "unknown"
    return "modified" if out.workspace_status() else "unchanged"


def outdated_stages(root: Path) -> list[str]:
    """Return the stages that `dvc repro` would look at again; empty when everything is up to date."""
    with _repository(root) as repo:
        return [_without_folder(str(name)) for name in repo.status()]


def bring_up_to_date(
    stage: str, *, root: Path, report: Report, environment: Mapping[str, str] | None = None
) -> bool:
    """Let DVC bring one stage up to date: True when it ran, False when nothing had changed; or StageError."""
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        if not _HINT.match(line):
            report(line)

    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    exit_code = run_group(command, cwd=root, env=child_environment(root, environment), report=keep)
    if exit_code != 0:
        raise _stage_error(stage, lines)
    return not any(_UP_TO_DATE.match(line) for line in lines)


def forget_experiment(name: str, *, root: Path) -> None:
    """Remove the DVC experiment of that name which starts from the current commit, if there is one."""
    with _repository(root) as repo:
        if any(name == found for found, _ in repo.experiments.ls().get(repo.scm.get_rev(), [])):
            repo.experiments.remove([name])


def run_group(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], report: Report) -> int:
    """Run a command in a process group of its own, hand its output to `report`, return its exit code.

    Whatever interrupts the wait ends the whole group: a signal to DVC alone would leave the training running.
    """
    child = subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        for line in child.stdout:
            report(line.rstrip())
        return child.wait()
    except BaseException:
        _end_group(child)
        raise


def _end_group(child: subprocess.Popen[str]) -> None:
    # SIGINT first: it is the one signal that DVC and torchrun both clean up after.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # members that outlived their leader


def _stage_error(stage: str, lines: list[str]) -> StageError:
    codes = [int(found) for line in lines for found in _EXIT_CODE.findall(line)]
    faults = [line.split(": ", 1)[1] for line in lines if line.startswith(("ERROR: ", "error: "))]
    reason = faults[0] if faults else "see its output above"
    return StageError(f"stage {stage} failed: {reason}", exit_code=codes[-1] if codes else 1)


@contextlib.contextmanager
def _repository(root: Path) -> Iterator[Any]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import SCMError

    try:
        with Repo(str(root)) as repo:
            yield repo
    except (DvcException, SCMError) as error:
        raise UserError(f"{root}: DVC says: {' '.join(str(error).split())}") from None
