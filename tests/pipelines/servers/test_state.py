"""What commands learn of the servers: used while they are supervised and answer, forgotten otherwise."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.environment import child_environment, default_settings
from pipelines.servers.state import (
    OpsState,
    ProgramState,
    answering_settings,
    answers,
    is_supervised,
    ops_dir,
    read_state,
    remove_state,
    take_lock,
    write_state,
)


@pytest.fixture
def listener() -> Iterator[str]:
    """Return the address of somebody who accepts connections."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def mlflow(address: str, phase: str = "healthy") -> OpsState:
    program = ProgramState(name="mlflow", address=address, settings={"MLFLOW_TRACKING_URI": address})
    program.phase = phase  # type: ignore[assignment]
    return OpsState(pid=1, programs=[program])


def test_a_project_without_servers_has_none(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    assert not is_supervised(tmp_path)
    assert answering_settings(tmp_path) == {}
    assert not ops_dir(tmp_path).exists(), "a look leaves nothing behind"


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    ops_dir(tmp_path).mkdir(parents=True)
    state = mlflow("http://127.0.0.1:5000")

    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    remove_state(tmp_path)
    assert read_state(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "programs": [{"colour": 1}]}'])
def test_a_damaged_state_is_none(tmp_path: Path, text: str) -> None:
    ops_dir(tmp_path).mkdir(parents=True)
    (ops_dir(tmp_path) / "state.json").write_text(text)

    assert read_state(tmp_path) is None


def test_only_one_supervisor_has_the_lock(tmp_path: Path) -> None:
    lock = take_lock(tmp_path)

    assert lock is not None
    assert is_supervised(tmp_path)
    assert take_lock(tmp_path) is None
    lock.close()
    assert not is_supervised(tmp_path)


def test_commands_use_a_server_that_is_supervised_and_answers(tmp_path: Path, listener: str) -> None:
    lock = take_lock(tmp_path)
    assert lock is not None
    with lock:
        write_state(tmp_path, mlflow(listener))

        assert default_settings(tmp_path)["MLFLOW_TRACKING_URI"] == listener
        assert child_environment(tmp_path)["MLFLOW_TRACKING_URI"] == listener


@pytest.mark.parametrize("fault", ["no supervisor", "silent", "nobody listens"])
def test_commands_do_without_a_server_that_is_not_there(tmp_path: Path, listener: str, fault: str) -> None:
    lock = take_lock(tmp_path)
    assert lock is not None
    with lock:
        address = "http://127.0.0.1:9" if fault == "nobody listens" else listener
        write_state(tmp_path, mlflow(address, "silent" if fault == "silent" else "healthy"))
        if fault == "no supervisor":
            lock.close()

        assert default_settings(tmp_path)["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/.work/mlflow.db"


def test_what_the_user_set_goes_before_a_server_of_ours(
    tmp_path: Path, listener: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = take_lock(tmp_path)
    assert lock is not None
    with lock:
        write_state(tmp_path, mlflow(listener))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker:5000")

        assert child_environment(tmp_path)["MLFLOW_TRACKING_URI"] == "http://tracker:5000"


def test_nobody_gives_no_answer() -> None:
    assert not answers("http://127.0.0.1:9/health")
    assert not answers("nonsense")
