"""How fast a bundle detects, backend by backend: `lstfe bench`.

Each backend runs in a process of its own, so that none profits from another's warm start and peak memory is its own.
Latency is the time of one `push` in steady state: a frame goes in, the detections of an earlier one come out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from deploy.bundle import Bundle, DetectorBuilder, StreamDetector, open_bundle
from deploy.device import host_threads
from deploy.graph_times import time_graphs
from deploy.peak_memory import peak_mib
from deploy.runtime import StreamRuntime
from lstfe.errors import UserError
from lstfe.types import ByteArray

MOST_KEPT = 64
"""Frames of a source that are decoded beforehand; longer runs go round in them."""
MOST_TIMED = 50
"""Frames over which the graphs are timed one by one, in a stream of their own."""
_PACKAGES = ("torch", "onnxruntime", "tensorrt", "pycuda", "numpy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One backend's row; all of it is None where it could not run."""

    backend: str
    reason: str | None = None
    """Why it could not run."""
    num_frames: int | None = None
    """Frames in steady state."""
    frame_size: tuple[int, int] | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    frames_per_second: float | None = None
    processor_ms: float | None = None
    """Processor time a frame, over all cores: steadier than latency where a machine is shared."""
    cold_start_s: float | None = None
    """From the start of a fresh process to its first detections, the lookahead's frames included."""
    host_peak_mib: float | None = None
    """Largest resident memory of the process."""
    device_mib: float | None = None
    """GPU memory in use at the end, where there is one."""
    threads: int | None = None
    graphs: list[dict[str, Any]] | None = None
    """What a frame spends in each graph, the most expensive first: name, ms, runs_per_frame, ms_per_frame."""


def benchmark(
    bundle_dir: Path, backends: Sequence[str], *, source: str | None = None, num_frames: int = 200
) -> dict[str, Any]:
    """Measure backends side by side and return the report.

    Without a source, frames are a moving texture of the model's short side and 4:3. Raises UserError for a bundle or
    a source that cannot be read.
    """
    bundle = open_bundle(bundle_dir)
    _load_frames(bundle, source, 1)  # what is wrong with the source is said once, here
    rows = [_in_fresh_process(bundle_dir, backend, source, num_frames) for backend in backends]
    return {
        "bundle": {
            "name": bundle.manifest.name,
            "model_version": bundle.manifest.model_version,
            "created_from": bundle.manifest.created_from,
            "method": bundle.manifest.method,
            "preset": bundle.manifest.preset,
            "lookahead": bundle.config.inference.lookahead,
        },
        "commit": _commit(),
        "source": source or "moving texture",
        "machine": describe_machine(),
        "backends": [asdict(row) for row in rows],
    }


def _in_fresh_process(bundle_dir: Path, backend: str, source: str | None, num_frames: int) -> Measured:
    command = [sys.executable, "-m", "deploy.benchmark", str(bundle_dir), backend, str(num_frames)]
    command += [repr(time.time())] + ([source] if source else [])
    root = Path(__file__).parents[1]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = result.stdout.strip().splitlines()
    if result.returncode != 0 or not lines:
        words = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        return Measured(backend=backend, reason=f"its process ended: {words}")
    values = json.loads(lines[-1])
    if values.get("frame_size"):
        values["frame_size"] = tuple(values["frame_size"])
    return Measured(**values)


def measure(bundle: Bundle, backend: str, source: str | None, num_frames: int, started: float) -> Measured:
    """Measure one backend in this process; `started` is when the process was asked for, seconds since the epoch."""
    frames = _load_frames(bundle, source, MOST_KEPT)
    lookahead = bundle.config.inference.lookahead
    warm_up = 2 * lookahead + 2
    build = bundle.detectors(backend)
    detector, stream = _open_stream(build, frames, warm_up + num_frames)
    cold_start_s = _until_first(detector, stream, started)
    for frame in islice(stream, lookahead + 1):  # summaries and memory of the first window are once
        detector.push(frame)
    latencies, processor = [], time.process_time()
    for frame in stream:
        begin = time.perf_counter()
        detector.push(frame)
        latencies.append(time.perf_counter() - begin)
    processor = time.process_time() - processor
    device_mib = _device_mib(backend)
    detector.finish()
    host_peak_mib = peak_mib()
    graphs = None
    if isinstance(detector, StreamRuntime):
        graphs = _graph_times(build, frames, min(num_frames, MOST_TIMED), warm_up)
    p50, p95, p99 = (float(value) * 1e3 for value in np.percentile(latencies, (50, 95, 99)))
    return Measured(
        backend=backend,
        num_frames=len(latencies),
        frame_size=(frames[0].shape[0], frames[0].shape[1]),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        frames_per_second=len(latencies) / sum(latencies),
        processor_ms=processor / len(latencies) * 1e3,
        cold_start_s=cold_start_s,
        host_peak_mib=host_peak_mib,
        device_mib=device_mib,
        threads=host_threads() or os.cpu_count(),
        graphs=graphs,
    )


def _open_stream(
    build: DetectorBuilder, frames: Sequence[ByteArray], num_frames: int
) -> tuple[StreamDetector, Iterator[ByteArray]]:
    """Return a detector that knows its pool, and its frames, which go round in those given."""
    detector = build(num_frames)
    detector.prime({index: frames[index % len(frames)] for index in detector.pool or ()})
    return detector, islice(cycle(frames), num_frames)


def _graph_times(
    build: DetectorBuilder, frames: Sequence[ByteArray], num_frames: int, warm_up: int
) -> list[dict[str, Any]]:
    """Return what a frame spends in each graph."""
    detector, stream = _open_stream(build, frames, warm_up + num_frames)
    assert isinstance(detector, StreamRuntime), "only backends that have graphs are asked"
    return [
        asdict(graph) | {"ms_per_frame": graph.ms_per_frame}
        for graph in time_graphs(detector, stream, warm_up=warm_up)
    ]


def _until_first(detector: StreamDetector, stream: Iterator[ByteArray], started: float) -> float:
    """Push frames until detections come out; return the seconds since the start."""
    for frame in stream:
        if detector.push(frame):
            break
    return time.time() - started


def _load_frames(bundle: Bundle, source: str | None, most: int) -> list[ByteArray]:
    if source is None:
        height = bundle.config.model.image_short_side
        width = min(bundle.config.model.image_long_side, height * 4 // 3)
        return moving_texture(most, (height, width))
    from deploy.sources import open_source

    opened = open_source(source, max_frames=most)
    if opened.num_frames is None:
        raise UserError(f"{source}: a live source runs at its own pace; give a file or a folder of pictures")
    return list(opened.read())


def moving_texture(num_frames: int, frame_size: tuple[int, int]) -> list[ByteArray]:
    """Return frames of coarse noise that moves by a pixel a frame, (H, W, 3) uint8."""
    height, width = frame_size
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    texture = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return [np.roll(texture, (shift // 2, shift), axis=(0, 1)) for shift in range(num_frames)]


def _device_mib(backend: str) -> float | None:
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return float(torch.cuda.max_memory_allocated()) / 2**20
    if backend == "tensorrt":
        from deploy.tensorrt.cuda import open_cuda

        cuda = open_cuda()
        with cuda.active():
            free, total = cuda.driver.mem_get_info()
        return float(total - free) / 2**20
    return None


def describe_machine() -> dict[str, Any]:
    """Return processor, memory, system and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu() -> str | None:
    from deploy.tensorrt.cuda import open_cuda

    try:
        return open_cuda().gpu.name
    except UserError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(checkout: Path = Path(__file__).parents[1]) -> str:
    """Return the commit of this code; an installed copy may lie in the repository of something else."""
    if not (checkout / "pyproject.toml").is_file():
        return "unknown"
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return result.stdout.strip() or "unknown"


def bench_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a report's rows as text; a backend that could not run has its reason in the last column."""
    rows = []
    for row in report["backends"]:
        figures = [row[name] for name in FIGURES]
        cells = ["-" if value is None else f"{value:.2f}" for value in figures]
        rows.append((row["backend"], *cells, row["reason"] or ""))
    return rows


def graph_rows(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return, for each backend that has graphs, what a frame spends in each of them, as text."""
    return [
        (row["backend"], graph["name"], *(f"{graph[figure]:.2f}" for figure in GRAPH_FIGURES))
        for row in report["backends"]
        for graph in row["graphs"] or ()
    ]


GRAPH_FIGURES = ("ms", "runs_per_frame", "ms_per_frame")
FIGURES = (
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "frames_per_second",
    "processor_ms",
    "cold_start_s",
    "host_peak_mib",
    "device_mib",
)


def main() -> None:
    """Measure one backend and print its row as JSON; what the user can mend is a row with a reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("backend")
    parser.add_argument("num_frames", type=int)
    parser.add_argument("started", type=float)
    parser.add_argument("source", nargs="?")
    given = parser.parse_args()
    try:
        bundle = open_bundle(given.bundle)
        row = measure(bundle, given.backend, given.source, given.num_frames, given.started)
    except UserError as error:
        row = Measured(backend=given.backend, reason=str(error))
    print(json.dumps(asdict(row)))


if __name__ == "__main__":
    main()
