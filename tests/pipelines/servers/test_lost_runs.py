"""Flow runs whose process died, against an HTTP server that plays Prefect's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.servers import lost_runs
from pipelines.servers.lost_runs import MAX_STARTS, RUN_VARIABLE, next_state, put_back, recover

Run = dict[str, Any]


class FakePrefect:
    """Answers what `recover` asks, and keeps what it was told."""

    def __init__(self, runs: list[Run]) -> None:
        self.asked: list[Any] = []
        self.told: dict[str, Any] = {}
        self.headers: dict[str, str] = {}
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/api/flow_runs/filter":
                    fake.asked.append(body)
                    answer = json.dumps(runs).encode()
                else:
                    fake.told[self.path.split("/")[3]] = body
                    answer = b"{}"
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                fake.headers = dict(self.headers)
                found = [run for run in runs if self.path == f"/api/flow_runs/{run['id']}"]
                answer = json.dumps(found[0] if found else {"name": f"flow at {self.path}"}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.api = f"http://127.0.0.1:{self.server.server_port}/api"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def prefect() -> Iterator[Callable[[list[Run]], FakePrefect]]:
    started: list[FakePrefect] = []

    def start(runs: list[Run]) -> FakePrefect:
        started.append(FakePrefect(runs))
        return started[-1]

    yield start
    for fake in started:
        fake.server.shutdown()
        fake.server.server_close()


@pytest.fixture
def process() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Return a starter of sleeping processes that belong to a flow run."""
    started: list[subprocess.Popen[bytes]] = []

    def start(run_id: str) -> subprocess.Popen[bytes]:
        code = "import time; time.sleep(300)"
        environment = os.environ | {RUN_VARIABLE: run_id}
        started.append(subprocess.Popen([sys.executable, "-S", "-c", code], env=environment))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()


def run(run_id: str, *, state: str = "RUNNING", starts: int = 1, pid: int | None = None) -> Run:
    return {
        "id": run_id,
        "flow_id": "f1",
        "name": f"run-{run_id}",
        "state_type": state,
        "run_count": starts,
        "infrastructure_pid": None if pid is None else str(pid),
    }


def test_without_unfinished_runs_nothing_is_done(
    prefect: Callable[[list[Run]], FakePrefect], tmp_path: Path
) -> None:
    fake = prefect([])
    recover(tmp_path, fake.api, "lstfe", print)

    assert fake.told == {}
    assert fake.asked[0]["work_pools"] == {"name": {"any_": ["lstfe"]}}


def test_a_lost_run_is_started_again_and_what_is_left_of_it_ended(
    prefect: Callable[[list[Run]], FakePrefect],
    process: Callable[[str], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    stage = process("lost")
    fake = prefect([run("lost", pid=2**22 + 1)])

    recover(tmp_path, fake.api, "lstfe", print)

    stage.wait(10)  # TimeoutExpired if it still ran
    assert fake.told["lost"]["force"] is True
    assert (fake.told["lost"]["state"]["type"], fake.told["lost"]["state"]["name"]) == (
        "SCHEDULED",
        "AwaitingRetry",
    )


def test_a_run_that_outlived_its_worker_is_left_alone(
    prefect: Callable[[list[Run]], FakePrefect],
    process: Callable[[str], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    flow = process("alive")
    fake = prefect([run("alive", pid=flow.pid)])

    recover(tmp_path, fake.api, "lstfe", print)

    assert flow.poll() is None
    assert fake.told == {}


def test_a_process_of_another_program_under_the_old_number_is_not_the_run(
    prefect: Callable[[list[Run]], FakePrefect],
    process: Callable[[str], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    other = process("another run")
    fake = prefect([run("lost", pid=other.pid)])

    recover(tmp_path, fake.api, "lstfe", print)

    assert other.poll() is None
    assert fake.told["lost"]["state"]["type"] == "SCHEDULED"


def test_a_run_that_kills_its_process_each_time_is_given_up() -> None:
    assert next_state(run("bad", starts=MAX_STARTS))["type"] == "CRASHED"
    assert next_state(run("bad", starts=MAX_STARTS - 1))["type"] == "SCHEDULED"
    assert next_state(run("new", state="PENDING", starts=0))["type"] == "SCHEDULED"


def test_the_webhook_hears_of_a_run_that_is_given_up_and_of_no_other(
    prefect: Callable[[list[Run]], FakePrefect], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(lost_runs, "notify", lambda *arguments, **details: told.append((arguments, details)))
    fake = prefect([run("again", starts=MAX_STARTS - 1), run("bad", starts=MAX_STARTS)])

    recover(tmp_path, fake.api, "lstfe", print)

    assert fake.told["bad"]["state"]["type"] == "CRASHED"
    assert told == [
        (
            (tmp_path, "flow failed", "its process died in each of 3 starts; given up"),
            {"flow": "flow at /api/flows/f1", "run": "run-bad", "state": "Crashed"},
        )
    ]


def test_runs_that_were_ended_are_put_back_and_no_others(
    prefect: Callable[[list[Run]], FakePrefect], tmp_path: Path
) -> None:
    fake = prefect(
        [run("ours"), run("done", state="COMPLETED"), run("theirs"), run("stop", state="CANCELLING")]
    )

    put_back(tmp_path, {"PREFECT_API_URL": fake.api}, ["done", "ours", "stop"], print)

    told = {name: body["state"]["type"] for name, body in fake.told.items()}
    assert told == {"ours": "SCHEDULED", "stop": "CANCELLED"}
    assert fake.asked == []  # nothing is said of runs that nobody named


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"PREFECT_API_KEY": "pnu_1"}, "Bearer pnu_1"),
        ({"PREFECT_API_AUTH_STRING": "admin:pass"}, "Basic YWRtaW46cGFzcw=="),
    ],
)
def test_a_server_that_asks_who_one_is_is_told(
    prefect: Callable[[list[Run]], FakePrefect],
    tmp_path: Path,
    settings: dict[str, str],
    expected: str | None,
) -> None:
    fake = prefect([run("ours")])

    put_back(tmp_path, {"PREFECT_API_URL": fake.api} | settings, ["ours"], print)

    assert fake.headers.get("Authorization") == expected


def test_a_run_that_was_being_cancelled_is_cancelled() -> None:
    assert next_state(run("stop", state="CANCELLING"))["type"] == "CANCELLED"


def test_a_server_that_does_not_answer_is_an_http_error(tmp_path: Path) -> None:
    with pytest.raises(httpx.HTTPError):
        recover(tmp_path, "http://127.0.0.1:9/api", "lstfe", print)
