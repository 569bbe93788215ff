"""A bar on a terminal, lines elsewhere, nothing when switched off."""

from __future__ import annotations

import logging
import sys

import pytest

from lstfe.training.progress import Progress

METRICS = {
    "loss": 1.25,
    "loss_objectness": 0.5,
    "lr": 1e-3,
    "images_per_second": 12.5,
    "data_wait_fraction": 0.02,
}


def test_switched_off_it_says_nothing(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), Progress(total=10, start=0, enabled=False) as progress:
        progress.advance()
        progress.show(METRICS, 1)
    assert capsys.readouterr() == ("", "")
    assert caplog.text == ""


def test_without_a_terminal_each_report_is_one_line_with_the_time_left(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), Progress(total=10, start=4, enabled=True) as progress:
        progress.advance()
        progress.show(METRICS, 5)
    (line,) = caplog.messages
    assert line.startswith(
        "update 5/10  loss 1.25  images/s 12.5  wait 0.02  objectness 0.5  lr 0.001  left 00:"
    )
    assert capsys.readouterr().err == ""


def test_on_a_terminal_the_bar_shows_updates_losses_and_speed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with caplog.at_level(logging.INFO), Progress(total=10, start=4, enabled=True) as progress:
        progress.advance()
        progress.show(METRICS, 5)
    shown = capsys.readouterr().err
    assert "5/10" in shown
    assert "loss 1.25" in shown
    assert "images/s 12.5" in shown
    assert caplog.text == ""
