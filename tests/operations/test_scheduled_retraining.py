"""A month in minutes: a schedule, a new video, a new champion, a rollback, and a challenger that is not let in."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import pytest

from pipelines.environment import child_environment
from pipelines.model_versions import ModelVersions
from pipelines.paths import champion_pointer
from pipelines.registry import history, read_champion

from ..project_copy import git
from . import small_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

_SETTINGS = ("DVC_", "LSTFE_", "MLFLOW_", "PREFECT_")
_LONG = 1800.0
"""Seconds until a wait gives up: many times what an idle machine needs."""

_SERVE = """
from pathlib import Path
from pipelines.flows import retrain
retrain.serve(name="every-few-seconds", interval=4, limit=1, parameters={"root": str(Path.cwd())})
"""


class _Webhook:
    """Takes notifications on loopback."""

    def __init__(self) -> None:
        received: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.received = received
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the machine sets for these tools; what a test sets is undone after it."""
    for name in list(os.environ):
        if name.startswith(_SETTINGS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # so that whatever the code under test sets is undone
    monkeypatch.delenv("MLFLOW_TRACKING_URI")


@pytest.fixture(scope="module")
def webhook() -> Iterator[_Webhook]:
    hook = _Webhook()
    yield hook
    hook.server.shutdown()


@pytest.fixture(scope="module")
def scheduled(tmp_path_factory: pytest.TempPathFactory, webhook: _Webhook) -> Iterator[Path]:
    """A project under a Prefect server of its own, in which `retrain` is started every few seconds."""
    folder = tmp_path_factory.mktemp("operations")
    root = small_project.make_project(folder / "project")
    api = f"http://127.0.0.1:{_free_port()}/api"
    extra = {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": api,
        "PREFECT_RUNNER_POLL_FREQUENCY": "2",
        "PYTHONPATH": str(root),
        "LSTFE_WEBHOOK": webhook.address,
        "OMP_NUM_THREADS": "1",
    }
    environment = child_environment(root, extra)
    port = api.rsplit(":", 1)[1].removesuffix("/api")
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    with (
        _running(server, folder / "server.log", root, environment),
        _healthy(f"{api}/health"),
        _running([sys.executable, "-c", _SERVE], folder / "flow.log", root, environment),
    ):
        yield root


class _running:
    """A process for as long as the block lasts; its whole group ends with it."""

    def __init__(self, command: list[str], log: Path, cwd: Path, environment: dict[str, str]) -> None:
        self._log = log.open("w")
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(30)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._log.close()


class _healthy:
    """Waits until an address answers."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        _wait(self._answers, "the Prefect server did not answer", seconds=300)

    def __exit__(self, *error: object) -> None:
        pass

    def _answers(self) -> bool:
        try:
            with urlopen(self._address, timeout=5):
                return True
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(condition: Callable[[], object], message: str, *, seconds: float = _LONG) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, message
        time.sleep(0.2)


def _log(root: Path) -> str:
    return (root.parent / "flow.log").read_text()


def _wait_for_champion(root: Path, version: str) -> None:
    def is_there() -> bool:
        champion = read_champion(root)
        return champion is not None and champion.version == version

    _wait(is_there, f"version {version} never became champion:\n{_log(root)[-4000:]}")


@contextlib.contextmanager
def _served(root: Path) -> Iterator[str]:
    """`lstfe serve` beside the flow, following the champion; yields its address."""
    port = _free_port()
    address = f"http://127.0.0.1:{port}"
    environment = child_environment(root, {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", str(port), "--workers", "1"]
    with _running(command, root.parent / "serve.log", root, environment), _healthy(f"{address}/readyz"):
        yield address


def _detect(root: Path, address: str) -> str:
    """Send a video of the test split and return the version of the model that looked at all of its frames."""
    video = sorted((root / "data" / "raw" / small_project.NAME / "videos").iterdir())[0]
    with httpx.Client(base_url=address, timeout=60) as client:
        job = (
            client.post("/v1/videos", files={"file": (video.name, video.read_bytes())})
            .raise_for_status()
            .json()
        )
        while job["state"] in ("queued", "running"):
            time.sleep(0.1)
            job = client.get(f"/v1/videos/{job['id']}").raise_for_status().json()
        assert job["state"] == "done", job
        client.get(f"/v1/videos/{job['id']}/detections").raise_for_status()
    assert job["videos"][0]["frames_done"] == small_project.RENDER.num_frames
    return str(job["model"]["version"])


def _wait_for_answer(client: small_project.PointerWatch, version: str) -> None:
    _wait(
        lambda: client.answers[-1:] == [version],
        f"the service never answered with version {version}",
        seconds=120,
    )


def _lstfe(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=root,
        env=child_environment(root, {"PYTHONPATH": str(root)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _aliases(root: Path) -> dict[str, str]:
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root}/.work/mlflow.db"
    return ModelVersions(root).aliases()


def test_a_new_video_makes_a_champion_a_rollback_undoes_it_and_a_worse_challenger_stays_outside(
    scheduled: Path, webhook: _Webhook
) -> None:
    root = scheduled
    _wait_for_champion(root, "1")
    _wait(lambda: "Nothing new" in _log(root), "a run without new data did not say so")

    with _served(root) as address, small_project.PointerWatch(root, lambda: _detect(root, address)) as client:
        _wait_for_answer(client, "1")
        small_project.drop_video(root, "monday", seed=21)
        _wait_for_champion(root, "2")
        _wait_for_answer(client, "2")
        _wait(lambda: not _trees(root), "the work tree of the retraining was not cleared away")
        assert _aliases(root) == {"champion": "2", "previous": "1"}

        assert "champion is version 1 again" in _lstfe(root, "ops", "rollback", "--reason", "a test")
        assert _aliases(root) == {"champion": "1"}
        _wait_for_answer(client, "1")

        # Worse on purpose: one update from nothing.
        nothing = {"train.iterations": 1, "train.still_iterations": 0}
        small_project.set_params(root, {"retrain": {"warm_start": False, "overrides": nothing}})
        small_project.drop_video(root, "tuesday", seed=22)
        _wait(lambda: history(root)[-1].action == "refuse", f"nothing was refused:\n{_log(root)[-4000:]}")
        _wait(lambda: not _trees(root), "the work tree of the retraining was not cleared away")

    assert client.failures == []
    assert client.versions == ["1", "2", "1"]
    assert client.answers == ["1", "2", "1"]
    actions = [(change.action, change.version) for change in history(root)]
    assert actions == [("promote", "1"), ("promote", "2"), ("rollback", "1"), ("refuse", "3")]
    assert "class drone" in history(root)[-1].reason
    assert _aliases(root) == {"champion": "1", "challenger": "3"}
    versions = {item.version: item for item in ModelVersions(root).all()}
    assert [versions[v].tags["gate.decision"] for v in ("1", "2", "3")] == ["promote", "promote", "refuse"]
    assert json.loads(champion_pointer(root).read_text())["version"] == "1"
    _wait(lambda: webhook.received, "the webhook was not told", seconds=120)
    told = [(item["event"], item.get("version")) for item in webhook.received]
    assert told == [("challenger refused", "3")]
    assert [git(root, "show", "-s", "--format=%s", name).strip() for name in _branches(root)] == [
        "Retrain on clips: version 1 promoted",
        "Retrain on clips: version 2 promoted",
        "Retrain on clips: version 3 refused",
    ]
    assert git(root, "status", "--porcelain").splitlines() == [" M params.yaml"]


def _trees(root: Path) -> list[Path]:
    return [path for path in (root / ".work" / "retrain").iterdir() if path.is_dir()]


def _branches(root: Path) -> list[str]:
    listed = git(
        root, "for-each-ref", "--sort=committerdate", "--format=%(refname:short)", "refs/heads/retrain/"
    )
    return listed.split()
