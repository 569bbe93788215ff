"""How long large annotations take and how much memory they need: load, prepare, show.

    python -m benchmarks.annotation_scale [--videos 1000] [--frames 200]

A generated raw data set of one split, with one or two objects a frame and no footage: `prepare` is handed one small
grey picture over and over, which it only counts, and `show` draws nothing. Each step runs in a process of its own,
whose peak memory (resident set) is what counts. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import numpy as np

from benchmarks.fresh_process import in_fresh_process, measured
from benchmarks.import_scale import IMAGE_SIZE, boxes_of
from lstfe.data.video import VideoInfo


def write_raw_data_set(folder: Path, num_videos: int, num_frames: int) -> None:
    """Write annotations/train.json and report.json."""
    from lstfe.data.raw import ImportOptions, RawObject, RawVideo, write_raw
    from lstfe.data.splits import Parts

    height, width = IMAGE_SIZE
    info = VideoInfo(width, height, num_frames, 30.0)

    def videos() -> Iterator[RawVideo]:
        for video in range(num_videos):
            objects = [
                RawObject(frame, (x1, y1, x2 - x1, y2 - y1), "drone", track)
                for frame in range(num_frames)
                for track, (x1, y1, x2, y2) in enumerate(boxes_of(video, frame))
            ]
            yield RawVideo(f"Video_{video:04d}", info, objects)

    parts: Parts = {f"Video_{video:04d}": ("train",) for video in range(num_videos)}
    write_raw(folder, videos(), parts, about={}, options=ImportOptions(annotations_only=True))


def load(raw: Path) -> None:
    """What a training does before its first clip: every video's frames, and the boxes of one frame of each."""
    from lstfe.data.coco_video import load_annotations

    annotations = load_annotations(raw / "annotations" / "train.json")
    for name in annotations.images_by_video:
        annotations.boxes(name, annotations.frame_ids(name)[0])


def prepare(raw: Path) -> None:
    """The stage, but for reading and writing pictures."""
    from lstfe.config import PrepareConfig
    from lstfe.data.prepare import prepare_data_set

    stage = importlib.import_module("lstfe.data.prepare")
    grey = np.full((4, 4, 3), 90, np.uint8)
    vars(stage)["read_as_annotated"] = lambda path, video: repeat(grey, video.num_frames)
    vars(stage)["write_frames"] = lambda path, frames, quality: sum(1 for _ in frames)
    prepare_data_set(raw, raw.with_name("prepared"), PrepareConfig())


def show(raw: Path) -> None:
    """Choose the video with the smallest objects and gather what is known of it."""
    from lstfe.data.show import choose_video, gather_video, load_raw_splits

    splits = load_raw_splits(raw)
    gather_video(splits, choose_video(splits)[0], raw)


STEPS: dict[str, Callable[[Path], None]] = {"load": load, "prepare": prepare, "show": show}


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        write_raw_data_set(raw, arguments.videos, arguments.frames)
        size = (raw / "annotations" / "train.json").stat().st_size / 2**20
        print(
            f"{arguments.videos} videos, {arguments.videos * arguments.frames} frames, {size:.0f} MiB of JSON"
        )
        print("| step | processor seconds | peak memory |\n|---|---|---|")
        for step in STEPS:
            _, spent = in_fresh_process(measured, STEPS[step], raw)
            print(f"| {step} | {spent.processor_seconds:.1f} | {spent.peak_mib:.0f} MiB |", flush=True)


if __name__ == "__main__":
    main()
