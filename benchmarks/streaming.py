"""End to end on this machine's GPU: `python -m benchmarks.streaming docs/benchmarks`.

Streams a moving texture through the preset `small` with ResNet-101 (random weights: speed needs no training) in
PyTorch as it is, in PyTorch compiled with CUDA graphs, and in TensorRT where it is installed; writes
gpu-streaming.json with frames/s, latencies and what memory does over 10,000 frames. Without a GPU it says so and
measures nothing; `--rehearse` goes through all of it on the CPU with a tiny network and writes times that are null,
`--memory FRAMES` watches that network's memory on the CPU over so many frames and writes cpu-memory.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from benchmarks.gpu import describe_gpu, write_report
from benchmarks.machine import describe_machine
from benchmarks.random_bundle import random_bundle
from deploy.benchmark import moving_texture
from deploy.bundle import Bundle, StreamDetector
from deploy.graph_times import time_graphs
from deploy.network import load_network
from deploy.runtime import StreamRuntime
from lstfe.config import Config, InferenceConfig, ModelConfig
from lstfe.errors import UserError
from lstfe.model.methods import resolve_method
from lstfe.params import load_config
from lstfe.stream import StreamingDetector

Row = dict[str, Any]
ENGINES = "TensorRT fp16"
NUM_TIMED = 100
"""Frames over which its graphs are timed one by one."""
# Parts of the model that a frame passes, in order; each becomes one CUDA graph.
COMPILED = ("extract", "describe", "enhance_prepared", "embed", "relate")
MEASURED = "time of one push in steady state; each way in turn in one process, in the order of the rows"


class StreamingError(UserError):
    """Nothing can be measured here."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is tried."""

    frame_size: tuple[int, int]
    num_frames: int
    """Frames of each way to run."""
    num_long: int
    """Frames over which memory is watched, for the last way that runs."""


FULL = Sizes((600, 800), 500, 10_000)
REHEARSAL = Sizes((64, 96), 4, 8)
TABLES = ("times", "graphs", "memory", "goals")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the JSON file")
    parser.add_argument("--rehearse", action="store_true", help="run on the CPU and time nothing")
    parser.add_argument("--memory", type=int, metavar="FRAMES", help="watch the memory on the CPU instead")
    given = parser.parse_args()
    try:
        if given.memory is not None:
            written = watch_on_the_cpu(given.out, given.memory)
        else:
            written = rehearse(given.out) if given.rehearse else measure(given.out)
    except StreamingError as error:
        parser.exit(2, f"error: {error}\n")
    print(f"written: {written}")


def measure(out: Path) -> Path:
    """Run everything on the GPU."""
    if not torch.cuda.is_available():
        raise StreamingError(
            "torch finds no CUDA GPU on this machine, so that nothing was measured; run it on one that has"
        )
    report = results(full_config(), FULL, is_timed=True)
    return write_report(out / "gpu-streaming.json", {"machine": describe_gpu(), **report}, TABLES)


def rehearse(out: Path) -> Path:
    """Run everything on the CPU; no time is taken."""
    report = results(rehearsal_config(), REHEARSAL, is_timed=False)
    return write_report(
        out / "rehearsal-streaming.json", {"machine": "no GPU: a rehearsal", **report}, TABLES
    )


def watch_on_the_cpu(out: Path, num_frames: int) -> Path:
    """Watch the memory of one stream on the CPU, in ONNX Runtime and in PyTorch, over that many frames."""
    config, sizes = rehearsal_config(), replace(REHEARSAL, num_long=num_frames)
    with tempfile.TemporaryDirectory() as folder:
        bundle = random_bundle(config, Path(folder))
        rows = [
            watch_memory(name, partial(bundle.detector, backend), sizes, config)
            for name, backend in (("ONNX Runtime", "onnx"), ("PyTorch", "torch"))
        ]
    machine = describe_machine("torch", "onnxruntime")
    return write_report(out / "cpu-memory.json", {"machine": machine, "memory": rows}, ("memory",))


def full_config() -> Config:
    """Return the preset `small` with ResNet-101 and the windows of long videos."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe")
    values = yaml.load(Path(__file__).parents[1] / "params.yaml")
    values["model"] = {"preset": "small", "method": "lstfe", "backbone": {"name": "resnet101"}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        yaml.dump(values, path)
        config = load_config(path)
    return resolve_method(replace(config, inference=InferenceConfig()))


def rehearsal_config() -> Config:
    """Return the smallest network that has every part."""
    model = ModelConfig(image_short_side=64, image_long_side=96)
    model = replace(
        model,
        backbone=replace(
            model.backbone,
            name="resnet18",
            width=16,
            feature_stride=8,
            feature_channels=16,
            layer4=False,
            reduce_channels=16,
        ),
        proposals=replace(model.proposals, pre_nms_top_k=50, current_top_k=10, reference_top_k=5),
        relation=replace(model.relation, embedding=32, num_groups=4),
    )
    inference = InferenceConfig(
        lookahead=2, alignment_gap=1, relation_range=2, num_relation=2, num_candidates=2
    )
    return resolve_method(Config(inference=inference, model=model))


def results(config: Config, sizes: Sizes, *, is_timed: bool) -> Row:
    """Return all of the report but the machine."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = random_bundle(config, Path(folder))
        rows: list[Row] = []
        graphs: list[Row] = []
        last = None
        for name, prepare in ways(bundle, sizes, is_timed=is_timed).items():
            row, runs = measured_way(name, prepare, sizes, config, is_timed=is_timed)
            rows.append(row)
            last = (name, prepare) if runs else last
            if name == ENGINES and runs and is_timed:
                graphs = graph_rows(prepare(), sizes, config)
        assert last is not None, "PyTorch always runs"
        memory = watch_memory(*last, sizes, config)
    return {
        "method": MEASURED,
        "times": rows,
        "graphs": graphs,
        "memory": [memory],
        "goals": goals(rows, memory),
    }


Prepare = Callable[[], StreamDetector]


def ways(bundle: Bundle, sizes: Sizes, *, is_timed: bool) -> dict[str, Prepare]:
    """Return the ways to run, each as what prepares a live stream."""
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def eager() -> StreamDetector:
        return StreamingDetector(load_network(bundle), bundle.config, device=device)

    def compiled() -> StreamDetector:
        model = load_network(bundle).to(device)
        for name in COMPILED:
            setattr(model, name, with_cuda_graphs(getattr(model, name), is_compiled=is_timed))
        return StreamingDetector(model, bundle.config, device=device)

    def engines() -> StreamDetector:
        from deploy.tensorrt.build import build_engines

        if not (bundle.directory / "engines").is_dir():
            build_engines(bundle, precision="fp16", frame_sizes=[sizes.frame_size])
        return bundle.detector("tensorrt")

    return {"PyTorch": eager, "PyTorch, compiled, CUDA graphs": compiled, ENGINES: engines}


def with_cuda_graphs(function: Callable[..., Any], *, is_compiled: bool) -> Callable[..., Any]:
    """Compile a part of the model; its outputs are copied, because the next replay overwrites them."""
    if not is_compiled:
        return lambda *arguments: copied(function(*arguments))
    part = torch.compile(function, mode="reduce-overhead", dynamic=False)

    def run(*arguments: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return copied(part(*arguments))

    return run


def copied(value: Any) -> Any:
    """Copy a tensor, or the tensors of a dataclass or a tuple."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return tuple(copied(part) for part in value)
    if hasattr(value, "__dataclass_fields__"):
        return replace(value, **{name: copied(getattr(value, name)) for name in value.__dataclass_fields__})
    return value


def measured_way(
    name: str, prepare: Prepare, sizes: Sizes, config: Config, *, is_timed: bool
) -> tuple[Row, bool]:
    """Return a row, and whether that way runs here."""
    try:
        latencies = stream(prepare(), sizes, config, sizes.num_frames)
    except UserError as error:
        return {"what": name, **dict.fromkeys(FIGURES), "not measured": str(error)}, False
    if not is_timed:
        return {"what": name, **dict.fromkeys(FIGURES), "not measured": "a rehearsal"}, True
    p50, p95, p99 = (float(value) for value in np.percentile(latencies, (50, 95, 99)))
    values = (len(latencies) / sum(latencies), p50 * 1e3, p95 * 1e3, p99 * 1e3)
    return {"what": name, **dict(zip(FIGURES, values, strict=True)), "not measured": ""}, True


FIGURES = ("frames/s", "p50 ms", "p95 ms", "p99 ms")


def stream(
    detector: StreamDetector,
    sizes: Sizes,
    config: Config,
    num_frames: int,
    watch: Callable[[int], None] | None = None,
) -> list[float]:
    """Push frames of a live stream and return the seconds of each, once windows are whole."""
    frames = cycle(moving_texture(32, sizes.frame_size))
    for frame in islice(frames, warm_up(config)):
        detector.push(frame)
    latencies = []
    for place, frame in enumerate(islice(frames, num_frames)):
        begin = time.perf_counter()
        detector.push(frame)  # detections come as arrays of the host, so the GPU has finished
        latencies.append(time.perf_counter() - begin)
        if watch is not None:
            watch(place)
    detector.finish()
    return latencies


def warm_up(config: Config) -> int:
    """Return after how many frames all windows are whole."""
    return config.inference.lookahead + config.inference.relation_range + 2


def graph_rows(detector: StreamDetector, sizes: Sizes, config: Config) -> list[Row]:
    """Return what a frame spends in each graph of a detector that has graphs."""
    assert isinstance(detector, StreamRuntime)
    num_first = warm_up(config)
    frames = islice(cycle(moving_texture(32, sizes.frame_size)), num_first + NUM_TIMED)
    return [
        {
            "graph": graph.name,
            "ms a run": graph.ms,
            "runs a frame": graph.runs_per_frame,
            "ms a frame": graph.ms_per_frame,
        }
        for graph in time_graphs(detector, frames, warm_up=num_first)
    ]


def watch_memory(name: str, prepare: Prepare, sizes: Sizes, config: Config) -> Row:
    """Stream many frames and compare memory after a tenth of them with memory at the end."""
    used: dict[int, tuple[float, float | None]] = {}
    early, late = sizes.num_long // 10, sizes.num_long - 1
    process = psutil.Process()

    def watch(place: int) -> None:
        if place in (early, late):
            used[place] = (process.memory_info().rss / 2**20, _device_mib())

    stream(prepare(), sizes, config, sizes.num_long, watch)
    (host_early, device_early), (host_late, device_late) = used[early], used[late]
    growth = None if device_early is None or device_late is None else device_late - device_early
    return {
        "what": name,
        "frames": sizes.num_long,
        "host MiB after a tenth": host_early,
        "host growth MiB": host_late - host_early,
        "GPU MiB after a tenth": device_early,
        "GPU growth MiB": growth,
    }


def _device_mib() -> float | None:
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


def goals(rows: list[Row], memory: Row) -> list[Row]:
    """Compare what was measured with what was aimed at; a goal without a measurement has no answer."""
    by_what = {row["what"]: row for row in rows}
    engine, eager = by_what[ENGINES], by_what["PyTorch"]
    speed, base = engine["frames/s"], eager["frames/s"]
    gain = speed / base if speed is not None and base is not None else None
    p50, p99 = engine["p50 ms"], engine["p99 ms"]
    steady = p50 / p99 if p50 is not None and p99 is not None else None
    found = [
        ("TensorRT / PyTorch, frames/s", gain, 3.0),
        ("TensorRT frames/s", speed, 200.0),
        ("TensorRT p50 / p99", steady, 1 / 1.3),
    ]
    measured = [
        {"goal": what, "found": value, "at least": aim, "met": None if value is None else value >= aim}
        for what, value, aim in found
    ]
    growth = memory["GPU growth MiB"]
    grows = {"goal": "-(GPU growth MiB)", "found": None, "at least": 0.0, "met": None}
    if growth is not None:
        grows |= {"found": -growth, "met": growth <= 0.0}
    return [*measured, grows]


if __name__ == "__main__":
    main()
