"""One process or many."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from lstfe.errors import UserError
from pipelines.launch import launch_processes


class _BecameAnother(Exception):
    """Stands for the end of this process."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    seen: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, command: list[str], environment: dict[str, str]) -> NoReturn:
        seen.append((command, environment))
        raise _BecameAnother

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.delenv("RANK", raising=False)
    return seen


@pytest.mark.parametrize("number", [None, "1"])
def test_one_process_needs_no_launcher(
    became: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch, number: str | None
) -> None:
    if number is not None:
        monkeypatch.setenv("LSTFE_NPROC", number)

    launch_processes("pipelines.train")

    assert became == []


def test_several_processes_are_started_by_torchrun_which_may_restart_them(
    became: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSTFE_NPROC", "2")

    with pytest.raises(_BecameAnother):
        launch_processes("pipelines.train")

    command, environment = became[0]
    assert command[1:3] == ["-m", "torch.distributed.run"]
    assert {"--standalone", "--nproc-per-node=2", "--max-restarts=3"} <= set(command)
    assert command[-2:] == ["-m", "pipelines.train"]
    assert environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"
    assert "OMP_NUM_THREADS" in environment


def test_a_process_of_torchrun_starts_no_other(
    became: list[tuple[list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSTFE_NPROC", "2")
    monkeypatch.setenv("RANK", "0")

    launch_processes("pipelines.train")

    assert became == []


@pytest.mark.parametrize("number", ["0", "-1", "two", ""])
def test_a_number_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    monkeypatch.setenv("LSTFE_NPROC", number)

    with pytest.raises(UserError, match="LSTFE_NPROC must be a whole number >= 1"):
        launch_processes("pipelines.train")
