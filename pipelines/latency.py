"""How long bundles take for a frame, side by side: `python -m pipelines.latency SPLIT FRAMES OUTPUT NAME=BUNDLE`."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lstfe.data.prepared import load_split
from lstfe.params import load_config
from pipelines.command import run_command
from pipelines.paths import PARAMS, PREPARED

_WARM_UP_FRAMES = 5


def measure_latency(
    bundles: Mapping[str, Path], prepared: Path, split: str, *, max_frames: int
) -> dict[str, float]:
    """Return the median processor time a frame of each bundle, in milliseconds, on the same frames.

    In turns, frame by frame, so that whatever else the machine does meets all of them alike; processor time (of
    all threads) because it is what a busy machine disturbs least. The first frames are left out.
    """
    from deploy.bundle import open_bundle

    frames = list(islice(_frames(prepared, split), max_frames + _WARM_UP_FRAMES))
    detectors = {name: open_bundle(path).detector("onnx", len(frames)) for name, path in bundles.items()}
    spent: dict[str, list[float]] = {name: [] for name in bundles}
    for detector in detectors.values():
        detector.prime({index: frames[index] for index in detector.pool or ()})
    for frame in frames:
        for name, detector in detectors.items():
            started = time.process_time()
            detector.push(frame)
            spent[name].append(time.process_time() - started)
    skipped = _WARM_UP_FRAMES if len(frames) > _WARM_UP_FRAMES else 0
    return {name: 1000 * statistics.median(times[skipped:]) for name, times in spent.items()}


def _frames(prepared: Path, split: str) -> Iterator[Any]:
    """Yield frames of the split, video after video, of those videos that have the first one's size."""
    annotations, store = load_split(prepared, split)
    size = (annotations.videos[0].height, annotations.videos[0].width)
    for video in annotations.videos:
        if (video.height, video.width) == size:
            yield from (store.read(video.name, frame_id) for frame_id in annotations.frame_ids(video.name))


def latency() -> None:
    """Measure the bundles that the command line names, on the data set of params.yaml."""
    split, max_frames, output, *named = sys.argv[1:]
    bundles = {name: Path(path) for name, path in (item.split("=", 1) for item in named)}
    prepared = PREPARED / load_config(PARAMS).data.name
    found = measure_latency(bundles, prepared, split, max_frames=int(max_frames))
    Path(output).write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(latency)
