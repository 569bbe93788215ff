"""Load on the service and what it does to it: `python -m benchmarks.service_load BUNDLE`.

A service is started on loopback as a process of its own. First clients upload short videos and poll for their
results, all at once; then cameras stream frames as fast as they are taken. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image
from websockets.sync.client import connect

from benchmarks.machine import describe_machine
from deploy.benchmark import moving_texture
from lstfe.data.video import VideoWriter
from pipelines.tables import markdown_table

_MIB = 1024**2


@dataclass
class Answers:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    request_ms: list[float] = field(default_factory=list)
    """Of each answered request."""
    job_s: list[float] = field(default_factory=list)
    """From the upload's begin to the results in hand."""


def main() -> None:
    """Print all figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--frames", type=int, default=8, help="frames of a client's video")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(240, 320), help="height and width of the frames"
    )
    parser.add_argument("--streams", type=int, nargs="*", default=(1, 4, 8))
    parser.add_argument("--stream-frames", type=int, default=60, help="frames of each stream")
    parser.add_argument("--workers", type=int, nargs="*", default=(1, 2))
    parser.add_argument("--threads", type=int, nargs="*", default=(1, 2))
    arguments = parser.parse_args()
    size = tuple(arguments.size)
    print(describe_machine("onnxruntime", "fastapi", "uvicorn", "av"), end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        video = _write_video(Path(folder) / "clip.mp4", arguments.frames, size)
        print(measure_clients(arguments.bundle, video, arguments.clients, arguments.seconds), end="\n\n")
    frames = [_jpeg(frame) for frame in moving_texture(arguments.stream_frames, size)]
    print(measure_streams(arguments.bundle, frames, arguments.streams, arguments.workers, arguments.threads))


def measure_clients(bundle: Path, video: Path, num_clients: int, seconds: float) -> str:
    """Return a table of what so many clients at once saw in so many seconds, and of the service's memory."""
    answers = Answers()
    with _service(bundle, {"max_queued_jobs": num_clients // 2, "max_kept_jobs": 64}) as (url, process):
        _client(url, video, time.monotonic(), answers)  # warm: memory is counted from here
        before, answers = _memory(process), Answers()
        peak = [before]
        deadline = time.monotonic() + seconds
        watch = threading.Thread(target=_watch, args=(process, peak, deadline))
        watch.start()
        with ThreadPoolExecutor(num_clients) as pool:
            list(pool.map(lambda _: _client(url, video, deadline, answers), range(num_clients)))
        watch.join()
        after = _memory(process)
    refused = answers.statuses[429] + answers.statuses[503]
    errors = sum(count for status, count in answers.statuses.items() if status >= 400) - refused
    rows = [
        ("requests", f"{answers.statuses.total()}"),
        ("errors (any status but 2xx, 429, 503)", f"{errors}"),
        ("broken connections and failed jobs", f"{len(answers.faults)}"),
        ("told to come back (429, 503, with Retry-After)", f"{refused}"),
        ("jobs done", f"{len(answers.job_s)}"),
        ("request, p50 / p99 (ms)", _percentiles(answers.request_ms, 1)),
        ("job, p50 / p99 (s)", _percentiles(answers.job_s, 2)),
        (
            "memory before / at half time / peak / after (MiB)",
            f"{before:.0f} / {peak[len(peak) // 2]:.0f} / {max(peak):.0f} / {after:.0f}",
        ),
    ]
    for fault in answers.faults[:5]:
        rows.append(("fault", fault))
    return markdown_table([f"{num_clients} clients, {seconds:g} s", "figure"], rows)


def measure_streams(
    bundle: Path,
    frames: Sequence[bytes],
    streams: Sequence[int],
    workers: Sequence[int],
    threads: Sequence[int],
) -> str:
    """Return a table of frames/s over all streams, by how the cores are used."""
    rows = []
    for num_workers in workers:
        for num_threads in threads:
            settings = {
                "workers": num_workers,
                "threads_per_worker": num_threads,
                "max_streams": max(streams),
            }
            with _service(bundle, settings) as (url, _):
                rates = [_stream_rate(url, frames, number) for number in streams]
            rows.append((f"{num_workers} x {num_threads}", *(f"{rate:.1f}" for rate in rates)))
    header = ["workers x threads", *(f"{number} streams" for number in streams)]
    return markdown_table(header, rows)


def _stream_rate(url: str, frames: Sequence[bytes], number: int) -> float:
    address = url.replace("http", "ws") + "/v1/streams"

    def watch(_: int) -> None:
        # All frames are sent at once: a ping would stand in line behind them until they are taken.
        with connect(address, proxy=None, max_size=None, ping_interval=None) as socket:
            sender = threading.Thread(target=_send, args=(socket, frames))
            sender.start()
            while json.loads(socket.recv())["type"] != "end":
                pass
            sender.join()

    begun = time.perf_counter()
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(watch, range(number)))
    return number * len(frames) / (time.perf_counter() - begun)


def _send(socket: object, frames: Sequence[bytes]) -> None:
    for message in (*frames, json.dumps({"type": "end"})):
        socket.send(message)  # type: ignore[attr-defined]


def _client(url: str, video: Path, deadline: float, answers: Answers) -> None:
    """Upload, poll and fetch until the deadline; at least once."""
    content = video.read_bytes()
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        while True:
            try:
                _job(client, content, answers)
            except httpx.HTTPError as error:
                answers.faults.append(f"{type(error).__name__}: {error}")
            if time.monotonic() > deadline:
                return


def _job(client: httpx.Client, content: bytes, answers: Answers) -> None:
    begun = time.perf_counter()
    answer = _ask(client, answers, "POST", "/v1/videos", content)
    if answer.status_code != 202:
        time.sleep(float(answer.headers.get("Retry-After", 1)) / 4)
        return
    path = f"/v1/videos/{answer.json()['id']}"
    while True:
        status = _ask(client, answers, "GET", path)
        state = status.json().get("state", status.text)
        if state not in ("queued", "running"):
            break
        time.sleep(0.1)
    if state != "done":
        answers.faults.append(status.text)
        return
    _ask(client, answers, "GET", f"{path}/detections")
    answers.job_s.append(time.perf_counter() - begun)


def _ask(
    client: httpx.Client, answers: Answers, method: str, path: str, content: bytes | None = None
) -> httpx.Response:
    begun = time.perf_counter()
    files = None if content is None else {"file": ("clip.mp4", content)}
    answer = client.request(method, path, files=files)
    answers.request_ms.append(1000 * (time.perf_counter() - begun))
    answers.statuses[answer.status_code] += 1
    return answer


@contextmanager
def _service(bundle: Path, settings: dict[str, int]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    environment = os.environ | {f"LSTFE_SERVE_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--port", "0", "--bundle", str(bundle)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None, "the service did not start"
            with httpx.Client(base_url=found[0], trust_env=False) as client:
                while client.get("/readyz").status_code != 200:
                    time.sleep(0.05)
            yield found[0], process
        finally:
            process.terminate()
            process.wait(timeout=60)


def _watch(process: subprocess.Popen[str], peak: list[float], deadline: float) -> None:
    while time.monotonic() < deadline:
        peak.append(_memory(process))
        time.sleep(0.2)


def _memory(process: subprocess.Popen[str]) -> float:
    """Return the service's own resident memory in MiB, its decoders not counted."""
    return float(psutil.Process(process.pid).memory_info().rss / _MIB)


def _percentiles(values: Sequence[float], digits: int) -> str:
    if len(values) < 2:
        return "-"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"{cuts[49]:.{digits}f} / {cuts[98]:.{digits}f}"


def _write_video(path: Path, num_frames: int, image_size: tuple[int, int]) -> Path:
    with VideoWriter(path, 30.0, image_size) as writer:
        for frame in moving_texture(num_frames, image_size):
            writer.write(frame)
    return path


def _jpeg(frame: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "JPEG", quality=90)
    return out.getvalue()


if __name__ == "__main__":
    main()
