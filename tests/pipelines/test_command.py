"""How commands end."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest

from lstfe.errors import UserError
from pipelines.command import StageError, run_command


@pytest.fixture(autouse=True)
def _restored_sigterm() -> object:
    previous = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, previous)


def _exit_code(command: Callable[[], None]) -> object:
    with pytest.raises(SystemExit) as ended:
        run_command(command)
    return ended.value.code


def _raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def test_a_command_that_is_done_exits_with_0() -> None:
    assert _exit_code(lambda: None) == 0


def test_a_users_fault_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code(_raising(UserError("params.yaml: train.lr must be > 0, got -1"))) == 2
    assert capsys.readouterr().err == "error: params.yaml: train.lr must be > 0, got -1\n"


@pytest.mark.parametrize("error", [URLError("no route"), ConnectionResetError("reset"), TimeoutError("slow")])
def test_a_network_fault_says_that_it_may_pass(error: OSError) -> None:
    assert _exit_code(_raising(error)) == 75


def test_a_users_message_about_a_network_fault_is_still_temporary() -> None:
    def command() -> None:
        try:
            raise URLError("no route")
        except URLError as error:
            raise UserError(f"weights cannot be downloaded ({error})") from None

    assert _exit_code(command) == 75


def test_a_full_disk_is_a_line_that_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert _exit_code(_raising(OSError(errno.ENOSPC, "No space left on device", "artifacts/x"))) == 2
    message = (
        "error: [Errno 28] No space left on device: 'artifacts/x'; free space and run the command again\n"
    )
    assert capsys.readouterr().err == message


def test_other_faults_of_the_system_keep_their_traceback() -> None:
    with pytest.raises(OSError, match="Input/output error"):
        run_command(_raising(OSError(errno.EIO, "Input/output error", "x")))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_what_may_not_be_read_or_written_is_a_line_that_names_it(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _exit_code(_raising(OSError(number, "not allowed", "data/x"))) == 2
    message = f"error: [Errno {number}] not allowed: 'data/x'; allow it, or name another file or folder\n"
    assert capsys.readouterr().err == message


def test_a_failed_stage_hands_on_its_exit_code() -> None:
    assert _exit_code(_raising(StageError("stage train failed", exit_code=2))) == 2


def test_our_own_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(_raising(ZeroDivisionError()))


def test_sigterm_lets_the_command_clean_up(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from pipelines.command import run_command
def command():
    try:
        Path({str(tmp_path)!r}, "started").touch()
        time.sleep(60)
    finally:
        Path({str(tmp_path)!r}, "cleaned").touch()
run_command(command)
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    child.terminate()

    assert child.wait(30) == 143
    assert (tmp_path / "cleaned").exists()
