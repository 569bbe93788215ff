"""Times on a CUDA device, and its own ceilings, measured in the same run."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.tables import text_table

Work = Callable[[], object]
Clock = Callable[[Work], float | None]
"""Returns the microseconds that one call of the work takes; None where nothing is measured."""

CALLS_PER_REPLAY = 10
REPLAYS = 15
LAUNCHES = 50


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the device reaches at best, measured; None where nothing is."""

    copy_bytes_per_second: float | None
    """Device-to-device copy of a large tensor, bytes read plus bytes written."""
    half_flops: float | None
    """Matrix product of two 8192 x 8192 float16 matrices of random numbers, floating-point operations a second."""

    def floor_us(self, flops: float, num_bytes: float) -> float | None:
        """Return the time that operations and memory traffic take at least, in microseconds."""
        if self.copy_bytes_per_second is None or self.half_flops is None:
            return None
        return 1e6 * max(flops / self.half_flops, num_bytes / self.copy_bytes_per_second)


def time_us(work: Work) -> float | None:
    """Return the median time of one call, replayed from a CUDA graph so that launching costs nothing."""
    torch.cuda.synchronize()  # the work's tensors were made in another stream
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):  # what is set up once must not be captured
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS_PER_REPLAY):
            work()
    graph.replay()
    times: list[float] = []
    for _ in range(REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / CALLS_PER_REPLAY)
    return statistics.median(times)


def time_launched_us(work: Work) -> float | None:
    """Return the median time of one call from Python until the device is done, what the host waits for included."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    times: list[float] = []
    for _ in range(LAUNCHES):
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(times)


def current_stream(device: torch.device) -> int:
    """Return the address of torch's current stream, the one being captured while a graph is made; 0 on the CPU."""
    return torch.cuda.current_stream().cuda_stream if device.type == "cuda" else 0


def no_time(work: Work) -> None:
    """Run the work once and measure nothing."""
    work()


def measure_ceilings(clock: Clock, device: torch.device) -> Ceilings:
    """Measure copy bandwidth and matrix product: on the CPU tiny ones, which `no_time` does not time."""
    size, side = (2**30, 8192) if device.type == "cuda" else (2**10, 32)
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_us = clock(lambda: target.copy_(source))
    left, right = (torch.randn(side, side, device=device).half() for _ in range(2))
    product = torch.empty_like(left)
    matmul_us = clock(lambda: torch.mm(left, right, out=product))
    return Ceilings(
        None if copy_us is None else 2 * size / copy_us * 1e6,
        None if matmul_us is None else 2 * side**3 / matmul_us * 1e6,
    )


def describe_gpu() -> dict[str, object]:
    """Return the device's name and size, and the versions that matter."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _driver() -> str:
    path = Path("/proc/driver/nvidia/version")
    return path.read_text(encoding="utf-8").splitlines()[0] if path.is_file() else "unknown"


def write_report(path: Path, report: Mapping[str, Any], tables: Sequence[str]) -> Path:
    """Write a report as JSON and print those of its parts that are tables, lists of rows with the same keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for name in tables:
        rows: list[dict[str, Any]] = report[name]
        if not rows:
            continue
        cells = [[_cell(value) for value in row.values()] for row in rows]
        print(f"\n{name}\n{text_table(tuple(rows[0]), cells)}")
    return path


def _cell(value: object) -> str:
    if value is None:
        return "not measured"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
