"""`lstfe ops` where nothing runs, and where something is in the way; tests/operations has the rest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lstfe.errors import UserError
from pipelines import cli
from pipelines.servers.control import down, status, up
from pipelines.servers.programs import OpsSettings
from pipelines.servers.state import marker


def test_where_nothing_runs_status_says_so_with_code_1(project: Path) -> None:
    result = CliRunner().invoke(cli.app, ["ops", "status"])

    assert result.exit_code == 1
    assert "nothing runs; `lstfe ops up` starts the servers" in result.output


def test_where_nothing_runs_down_has_nothing_to_do(project: Path) -> None:
    result = CliRunner().invoke(cli.app, ["ops", "down"])

    assert (result.exit_code, result.output) == (0, "nothing ran\n")


def test_a_port_that_is_taken_is_named_with_the_option(project: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} for prefect is taken.*--prefect-port"):
            up(project, OpsSettings(prefect_port=port), report=print)

    assert "nothing runs" in status(project)[0]


def test_down_ends_what_a_killed_supervisor_left(project: Path) -> None:
    code = "import time; time.sleep(300)"
    environment = os.environ | dict([marker(project)])
    left = subprocess.Popen([sys.executable, "-S", "-c", code], env=environment)
    stranger = subprocess.Popen(
        [sys.executable, "-S", "-c", code], env=os.environ | dict([marker(project / "x")])
    )

    assert down(project)
    left.wait(10)  # TimeoutExpired if it still ran
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
