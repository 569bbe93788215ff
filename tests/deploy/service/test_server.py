from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from deploy.service.server import _listen
from deploy.service.settings import ServeSettings
from lstfe.types import ByteArray

TOKEN = "a-token-of-the-first-client"


def upload(client: httpx.Client, video: Path) -> str:
    answer = client.post("/v1/videos", files={"file": (video.name, video.read_bytes())})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def refused(*options: str, **settings: str) -> str:
    """Start the command, which must refuse to, and return its last line."""
    command = [sys.executable, "-m", "pipelines.cli", "serve", *options]
    root = Path(__file__).parents[3]
    environment = {"PATH": "", "PYTHONPATH": str(root), **settings}
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=environment)
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    return process.stderr.strip().splitlines()[-1]


def test_the_command_refuses_what_cannot_work_in_one_line(bundle_dir: Path) -> None:
    bundle = ("--bundle", str(bundle_dir))
    assert "a token is needed" in refused(*bundle, "--host", "0.0.0.0")
    assert "cannot be listened at" in refused(*bundle, "--host", "192.0.2.1", "--no-auth")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_answers_do_not_wait_for_the_client_to_acknowledge_their_beginning(host: str) -> None:
    with _listen(ServeSettings(host=host, port=0)) as listener:
        address = listener.getsockname()[:2]
        with socket.create_connection(address), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_sigterm_finishes_what_runs_and_exits_with_zero(
    serve_child: Callable[..., Any],
    bundle_dir: Path,
    make_video: Callable[..., Path],
    tmp_path: Path,
    wait_for: Callable[..., Any],
) -> None:
    child = serve_child("--bundle", bundle_dir, "--spool", tmp_path / "spool", drain_s=60)
    with child.client() as client:
        job_id = upload(client, make_video(60))
        child.process.send_signal(signal.SIGTERM)
        wait_for(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["status"] == "draining"
        assert client.get("/healthz").status_code == 200
        new = client.post("/v1/videos", files={"file": ("a", b"x")})
        assert (new.status_code, new.headers["Retry-After"]) == (503, "2")
        wait_for(lambda: client.get(f"/v1/videos/{job_id}").json()["state"] == "done")
        assert len(client.get(f"/v1/videos/{job_id}/detections").json()) > 0
    assert child.process.wait(timeout=60) == 0
    assert list((tmp_path / "spool").iterdir()) == []
    assert "Traceback" not in child.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_past_its_deadline_the_service_ends_all_the_same(
    serve_child: Callable[..., Any],
    bundle_dir: Path,
    make_video: Callable[..., Path],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    child = serve_child("--bundle", bundle_dir, "--spool", tmp_path / "spool", "--drain-s", "0.5")
    with child.client() as client:
        upload(client, make_video(3000))
    begun = time.monotonic()
    decoders = psutil.Process(child.process.pid).children(recursive=True)
    assert child.end(number) == 0
    assert time.monotonic() - begun < 20
    assert psutil.wait_procs(decoders, timeout=10)[1] == [], "no decoder is left behind"
    assert list((tmp_path / "spool").iterdir()) == []


def test_no_request_fails_while_models_are_swapped(
    serve_child: Callable[..., Any],
    promote: Callable[..., Path],
    make_video: Callable[..., Path],
    tmp_path: Path,
    wait_for: Callable[..., Any],
) -> None:
    child = serve_child(pointer=promote("1"), poll_s=0.05, drain_s=1)
    video = make_video(2)
    seen: list[str] = []
    failures: list[str] = []
    is_over = threading.Event()

    def poll() -> None:
        with child.client() as client:
            while not is_over.is_set():
                ready = client.get("/readyz")
                answer = client.post("/v1/videos", files={"file": (video.name, video.read_bytes())})
                if ready.status_code != 200 or answer.status_code != 202:
                    failures.append(f"{ready.status_code} {answer.status_code} {answer.text}")
                    continue
                job_id = answer.json()["id"]
                while (job := client.get(f"/v1/videos/{job_id}").json())["state"] in ("queued", "running"):
                    time.sleep(0.02)
                if job["state"] != "done":
                    failures.append(str(job))
                seen.append(job["model"]["version"])

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        with child.client() as client:
            for version in ("2", "3"):
                wait_for(lambda: len(seen) >= 2 and seen[-1] == seen[-2])
                promote(version)
                wait_for(lambda version=version: seen[-1] == version)
            promote("broken", tmp_path / "nowhere")
            wait_for(lambda: client.get("/readyz").json()["fault"])
            promote("1")  # a rollback is a promotion
            wait_for(lambda: seen[-1] == "1")
            assert client.get("/readyz").json()["fault"] is None
    finally:
        is_over.set()
        thread.join(timeout=60)
    assert failures == []
    assert list(dict.fromkeys(seen)) == ["1", "2", "3"]
    assert child.end() == 0


def test_sixteen_clients_at_once_get_their_answers_or_are_told_when_to_come_back(
    serve_child: Callable[..., Any], bundle_dir: Path, make_video: Callable[..., Path]
) -> None:
    child = serve_child("--bundle", bundle_dir, max_queued_jobs=4, drain_s=1)
    content = make_video(2).read_bytes()
    deadline = time.monotonic() + 3

    def work(number: int) -> list[int]:
        statuses = []
        with child.client() as client:
            while time.monotonic() < deadline:
                answer = client.post("/v1/videos", files={"file": ("a.mp4", content)})
                statuses.append(answer.status_code)
                if answer.status_code != 202:
                    assert int(answer.headers["Retry-After"]) > 0
                    time.sleep(0.05)
                    continue
                job_id = answer.json()["id"]
                while (job := client.get(f"/v1/videos/{job_id}").json())["state"] in ("queued", "running"):
                    time.sleep(0.05)
                assert job["state"] == "done", job
        return statuses

    with ThreadPoolExecutor(16) as pool:
        statuses = [status for found in pool.map(work, range(16)) for status in found]
    assert set(statuses) == {202, 429}
    assert statuses.count(202) >= 16 // 4
    assert child.end() == 0
    assert "Traceback" not in child.log.read_text()


def test_a_camera_over_the_network_is_answered_while_it_sends(
    serve_child: Callable[..., Any], bundle_dir: Path, make_frames: Callable[..., Iterator[ByteArray]]
) -> None:
    child = serve_child("--bundle", bundle_dir, tokens=TOKEN, drain_s=1)
    url = child.url.replace("http", "ws") + "/v1/streams"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with connect(url, additional_headers=headers, proxy=None) as stream:
        assert '"ready"' in str(stream.recv(timeout=30))
        for frame in make_frames(5):
            out = io.BytesIO()
            Image.fromarray(frame).save(out, "JPEG")
            stream.send(out.getvalue())
        for index in range(3):
            assert f'"frame_index": {index}' in str(stream.recv(timeout=30))
        assert child.end() == 0
        left = []
        with pytest.raises(ConnectionClosedError, match="1012"):  # noqa: PT012
            while True:
                left.append(json.loads(stream.recv(timeout=30)))
    assert [message["type"] for message in left] == ["draining", "detections", "detections", "end"]
    assert [message["frame_index"] for message in left[1:3]] == [3, 4]
    assert TOKEN not in child.log.read_text()
