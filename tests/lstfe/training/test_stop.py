"""A signal ends nothing by itself: it is noted, agreed on and acted on after the update."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from lstfe.training import stop as stopping
from lstfe.training.distributed import World
from lstfe.training.stop import (
    PREEMPTED,
    StopRequest,
    TrainingStopped,
    ValidationInterrupted,
    stop_for,
)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_without_a_signal_nobody_stops_and_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest(World()) as stop:
        assert signal.getsignal(signal.SIGTERM) != before[0]
        assert stop.agreed_signal() == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_said_and_the_work_goes_on(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with StopRequest(World()) as stop:
        send(number)
        assert stop.agreed_signal() == number
    assert f"told to stop ({number.name})" in caplog.text


def test_a_second_ctrl_c_does_not_wait_but_a_second_sigterm_does() -> None:
    with StopRequest(World()) as stop:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop.agreed_signal() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


def validate(stop: StopRequest, seen: list[str], *, number: signal.Signals | None) -> None:
    with stop.interrupting():
        seen.append("began")
        if number is not None:
            send(number)
        seen.append("ended")


def test_a_signal_interrupts_a_validation_at_once_and_one_before_it_lets_none_begin() -> None:
    seen: list[str] = []
    with StopRequest(World()) as stop:
        validate(stop, seen, number=None)
        assert seen == ["began", "ended"]
        with pytest.raises(ValidationInterrupted):
            validate(stop, seen, number=signal.SIGTERM)
        assert seen == ["began", "ended", "began"]
        with pytest.raises(ValidationInterrupted):
            validate(stop, seen, number=None)
    assert seen == ["began", "ended", "began"]


def test_other_threads_leave_the_handlers_alone() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def run() -> None:
        with StopRequest(World()) as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.agreed_signal()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, 0)]


def test_the_exit_codes_tell_preemption_from_ctrl_c() -> None:
    with pytest.raises(TrainingStopped) as stopped:
        stop_for(signal.SIGTERM)
    assert stopped.value.code == PREEMPTED == 79
    with pytest.raises(KeyboardInterrupt):
        stop_for(signal.SIGINT)


def test_a_process_that_cannot_stop_ends_after_the_grace_time() -> None:
    code = (
        "import os, signal, time\n"
        "from lstfe.training import stop\n"
        "from lstfe.training.distributed import World\n"
        "stop.GRACE_SECONDS = 0.3\n"
        "with stop.StopRequest(World()):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    assert stopping.GRACE_SECONDS >= 60
    assert (
        subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, timeout=50).returncode == 143
    )
