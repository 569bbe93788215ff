"""One at a time: a second holder is refused, a dead one is forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.lock import Busy, hold_lock

_HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom pipelines.lock import hold_lock\n"
    "with hold_lock(Path(sys.argv[1]), what='a test'):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path / "lock")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_free_lock_can_be_held_again_and_again(tmp_path: Path) -> None:
    for _ in range(2):
        with hold_lock(tmp_path / "below" / "lock", what="a test"):
            assert (tmp_path / "below" / "lock").is_file()


def test_a_second_holder_is_told_who_has_it_and_the_dead_leave_none_behind(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(Busy, match=f"a test is running already \\(process {holder.pid} since"):
        _hold(tmp_path)

    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    _hold(tmp_path)


def test_who_waits_gets_it_when_the_holder_ends(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    started = time.monotonic()
    with pytest.raises(Busy):
        _hold(tmp_path, wait_seconds=0.3)
    assert time.monotonic() - started >= 0.3

    holder.terminate()
    _hold(tmp_path, wait_seconds=10.0)
    holder.wait(10)


def _hold(folder: Path, *, wait_seconds: float = 0.0) -> None:
    with hold_lock(folder / "lock", what="a test", wait_seconds=wait_seconds):
        pass
