"""What one node carries, measured; and how many nodes a fleet of cameras takes, computed from that.

    python -m benchmarks.fleet measure [--bundle DIR] [--frames 60] [--output docs/benchmarks/fleet.json]
    python -m benchmarks.fleet size docs/benchmarks/fleet.json [--cameras 10000] [--rate 5] [--cores 64] [--gib 256]

`measure` runs the onnx runtime on one thread over a rendered video. Times are processor seconds, so that other work on
the machine counts little. Without --bundle it makes one of preset `tiny` with random weights: all graphs have fixed
sizes, so that what they find does not change what they cost. `size` prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from benchmarks.fresh_process import in_fresh_process
from benchmarks.machine import describe_machine
from lstfe.config import RenderConfig

_MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFigures:
    """What was measured on one core."""

    machine: str
    preset: str
    image_size: tuple[int, int]
    num_frames: int
    seconds_per_frame: float
    """Processor seconds of the detector, one thread."""
    decode_seconds_per_frame: float
    """Processor seconds to decode a frame of H.264."""
    mib_per_process: float
    """A process with an opened bundle and one stream."""
    mib_per_stream: float
    """Each further stream of that process: its state and its own sessions."""
    bytes_per_frame: float
    """The video file's size by its frames."""
    result_bytes_per_frame: float
    """Detections of a frame as JSON, at the most that the configuration allows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cameras:
    """A fleet of cameras."""

    number: int = 10_000
    frames_per_second: float = 5.0
    """Frames of each camera that are looked at."""
    detections_per_frame: float = 2.0
    """That are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A machine to buy."""

    cores: int = 64
    memory_gib: float = 256.0
    network_gbit: float = 10.0
    load: float = 0.7
    """Share of the node that is planned for; the rest is for bursts and for a failed neighbour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fleet:
    """What carries the cameras, and what limits it."""

    nodes: int
    bottleneck: str
    nodes_by_resource: dict[str, float]
    """Nodes that each resource alone would take, not rounded."""
    cameras_per_node: float
    total_cores: int
    ingest_gbit: float
    """All cameras together."""
    results_per_second: float
    """Kept detections, of all cameras."""
    results_gib_per_day: float


BYTES_PER_DETECTION = 120
"""One entry of detections.json, rounded up."""


def size_fleet(figures: NodeFigures, cameras: Cameras, node: Node) -> Fleet:
    """Return what the cameras take: cores by time, memory by streams, network by bytes; whichever is most."""
    frames = cameras.number * cameras.frames_per_second
    seconds = figures.seconds_per_frame + figures.decode_seconds_per_frame
    # A stream in a process of its own is the dearest way and the one that survives its neighbours.
    memory_gib = cameras.number * figures.mib_per_process / 1024
    ingest_gbit = frames * figures.bytes_per_frame * 8 / 1e9
    by_resource = {
        "cores": frames * seconds / (node.cores * node.load),
        "memory": memory_gib / (node.memory_gib * node.load),
        "network": ingest_gbit / (node.network_gbit * node.load),
    }
    bottleneck = max(by_resource, key=by_resource.__getitem__)
    nodes = max(1, math.ceil(by_resource[bottleneck] - 1e-9))
    results = frames * cameras.detections_per_frame
    return Fleet(
        nodes=nodes,
        bottleneck=bottleneck,
        nodes_by_resource=by_resource,
        cameras_per_node=cameras.number / nodes,
        total_cores=nodes * node.cores,
        ingest_gbit=ingest_gbit,
        results_per_second=results,
        results_gib_per_day=results * BYTES_PER_DETECTION * 86_400 / 2**30,
    )


def table(figures: NodeFigures, cameras: Cameras, node: Node) -> str:
    """Return what `size_fleet` finds for several rates, as Markdown."""
    lines = [
        "| frames/s of a camera | nodes | limited by | cameras a node | cores in all | ingest, Gbit/s | detections/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate in sorted({1.0, cameras.frames_per_second, 25.0}):
        fleet = size_fleet(figures, replace(cameras, frames_per_second=rate), node)
        lines.append(
            f"| {rate:g} | {fleet.nodes} | {fleet.bottleneck} | {fleet.cameras_per_node:.0f} "
            f"| {fleet.total_cores} | {fleet.ingest_gbit:.1f} | {fleet.results_per_second:.0f} |"
        )
    return "\n".join(lines)


def measure(bundle_dir: Path, video: Path, num_frames: int) -> NodeFigures:
    """Measure the bundle's onnx runtime on one thread over the first frames of a video."""
    os.environ["OMP_NUM_THREADS"] = "1"
    from deploy.bundle import open_bundle
    from deploy.sources import open_source

    bundle = open_bundle(bundle_dir)
    source = open_source(video, max_frames=num_frames)
    begin = time.process_time()
    frames = list(source.read())
    decode = (time.process_time() - begin) / len(frames)
    process = psutil.Process()
    memory, seconds, records = [], math.inf, 0
    detectors = []  # kept, so that the second one's memory is its own
    for _ in range(2):
        detector = bundle.detector("onnx", len(frames))
        detectors.append(detector)
        if detector.pool:
            detector.prime({index: frames[index] for index in detector.pool})
        begin = time.process_time()
        found = [item for frame in frames for item in detector.push(frame)]
        seconds = min(seconds, (time.process_time() - begin) / len(frames))
        memory.append(process.memory_info().rss / _MIB)
        records = max(records, *(len(item.detections.scores) for item in found))
    frames_in_memory = sum(frame.nbytes for frame in frames) / _MIB
    return NodeFigures(
        machine=describe_machine("onnxruntime"),
        preset=bundle.manifest.preset,
        image_size=(frames[0].shape[0], frames[0].shape[1]),
        num_frames=len(frames),
        seconds_per_frame=round(seconds, 5),
        decode_seconds_per_frame=round(decode, 6),
        mib_per_process=round(memory[0] - frames_in_memory, 1),
        mib_per_stream=round(memory[1] - memory[0], 1),
        bytes_per_frame=round(video.stat().st_size / (source.num_frames or 1), 1),
        result_bytes_per_frame=float(records * BYTES_PER_DETECTION),
    )


def _random_bundle(folder: Path) -> Path:
    """Write a bundle of the project's configuration; return its folder."""
    from benchmarks.random_bundle import random_bundle
    from lstfe.model.methods import resolve_method
    from lstfe.params import load_config

    return random_bundle(resolve_method(load_config("params.yaml")), folder).directory


def rendered_video(folder: Path, num_frames: int) -> Path:
    """Render one video of the embedded data set's kind; return its path."""
    from lstfe.data.rendering.renderer import render_data_set

    config = RenderConfig(
        num_train_videos=1,
        num_val_videos=1,
        num_test_videos=1,
        num_frames=max(num_frames, 16),
        num_branches=1,
    )
    render_data_set(config, folder / "raw")
    return next(path for path in sorted((folder / "raw").rglob("*")) if path.suffix in (".mp4", ".avi"))


def read_figures(path: Path) -> NodeFigures:
    """Read what `measure` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    return NodeFigures(**{**values, "image_size": tuple(values["image_size"])})


def main() -> None:
    """Measure, or size a fleet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--bundle", type=Path)
    measuring.add_argument("--frames", type=int, default=60)
    measuring.add_argument("--output", type=Path)
    sizing = commands.add_parser("size")
    sizing.add_argument("figures", type=Path)
    sizing.add_argument("--cameras", type=int, default=Cameras().number)
    sizing.add_argument("--rate", type=float, default=Cameras().frames_per_second)
    sizing.add_argument("--cores", type=int, default=Node().cores)
    sizing.add_argument("--gib", type=float, default=Node().memory_gib)
    options = parser.parse_args()
    if options.command == "size":
        cameras = Cameras(number=options.cameras, frames_per_second=options.rate)
        print(
            table(read_figures(options.figures), cameras, Node(cores=options.cores, memory_gib=options.gib))
        )
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = rendered_video(folder, options.frames)
        bundle = options.bundle or _random_bundle(folder)
        # What made the bundle (torch) must not count as memory of the runtime.
        figures = in_fresh_process(measure, bundle, video, options.frames)
    text = json.dumps(asdict(figures), indent=2) + "\n"
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
