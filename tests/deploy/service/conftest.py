"""Services of the tiny bundle: inside the test, or as a process of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.service.app import build_app
from deploy.service.service import Service
from deploy.service.settings import ServeSettings

with warnings.catch_warnings():  # of a successor to httpx that nothing here needs
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient, WebSocketDenialResponse

ROOT = Path(__file__).parents[3]
SECONDS = 60.0


def wait_for(condition: Callable[[], Any], *, seconds: float = SECONDS) -> Any:
    """Wait until a condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return value


@pytest.fixture(name="wait_for")
def _wait_for() -> Callable[..., Any]:
    """Return `wait_for`."""
    return wait_for


@dataclass(frozen=True)
class Running:
    """A service inside the test."""

    client: TestClient
    service: Service

    def stream(self, **headers: str) -> Any:
        """Open a stream: a context manager around its messages."""
        return self.client.websocket_connect("ws://127.0.0.1/v1/streams", headers=headers)

    def denied_stream(self, **headers: str) -> httpx.Response:
        """Return the answer to a stream that is not let in."""
        with pytest.raises(WebSocketDenialResponse) as caught, self.stream(**headers):
            pass
        return caught.value

    def submit(self, *videos: Path) -> dict[str, Any]:
        """Upload videos and return the job."""
        files = [("file", (video.name, video.read_bytes())) for video in videos]
        answer = self.client.post("/v1/videos", files=files)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def finished(self, job_id: str) -> dict[str, Any]:
        """Wait for a job's end and return it."""

        def finished() -> dict[str, Any] | None:
            job = self.client.get(f"/v1/videos/{job_id}").json()
            return job if job["state"] in ("done", "failed", "cancelled") else None

        return dict(wait_for(finished))


@pytest.fixture
def serve(bundle_dir: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Return a starter of services: serve(max_streams=1) is ready when it returns, and ends with the test."""
    with ExitStack() as stack:

        def start(*, is_ready: bool = True, **changes: Any) -> Running:
            given = {
                "bundle": bundle_dir,
                "spool": tmp_path / "spool",
                "workers": 1,
                "poll_s": 0.05,
            } | changes
            service = Service(ServeSettings(**given))
            client = TestClient(
                build_app(service), base_url="http://127.0.0.1", raise_server_exceptions=False
            )
            stack.enter_context(client)
            if is_ready:
                wait_for(lambda: client.get("/readyz").status_code == 200)
            return Running(client, service)

        yield start


@dataclass
class Child:
    """A service in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of it."""
        return httpx.Client(base_url=self.url, timeout=SECONDS, trust_env=False, **options)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=SECONDS)


@pytest.fixture
def serve_child(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Return a starter of `lstfe serve` with options and settings; it is ready, and killed at last if need be."""
    children: list[Child] = []

    def start(*options: str | Path, is_ready: bool = True, **settings: Any) -> Child:
        log = tmp_path / f"service-{len(children)}.log"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("LSTFE_SERVE_")
        }
        environment |= {f"LSTFE_SERVE_{name.upper()}": str(value) for name, value in settings.items()}
        environment |= {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0", *map(str, options)]
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, text=True, stdout=output, stderr=subprocess.STDOUT
            )
        child = Child(process, "", log)
        children.append(child)

        def address() -> re.Match[str] | None:
            assert process.poll() is None, log.read_text()
            return re.search(r"serving (http://\S+)", log.read_text())

        child.url = wait_for(address)[1]
        if is_ready:
            with child.client() as client:
                wait_for(lambda: client.get("/readyz").status_code == 200)
        return child

    yield start
    for child in children:
        if child.process.poll() is None:
            child.process.kill()
            child.process.wait()


@pytest.fixture
def promote(tmp_path: Path, bundle_dir: Path) -> Callable[..., Path]:
    """Return a writer of champion.json: promote("3") names the tiny bundle, promote("4", folder) another."""

    def write(version: str, bundle: Path = bundle_dir) -> Path:
        pointer = tmp_path / "serving" / "champion.json"
        pointer.parent.mkdir(exist_ok=True)
        partial = pointer.with_name("partial")
        content = {
            "version": version,
            "bundle": str(bundle),
            "run_id": "run" + version,
            "promoted_at": "2026-01-01",
        }
        partial.write_text(json.dumps(content))
        partial.replace(pointer)
        return pointer

    return write
