"""Speed of the training loader against what the decoder alone does: `python -m benchmarks.loader`.

Run it on an otherwise idle machine with as many cores as workers; the other tables pin themselves to one core.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, islice
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.clips import (
    Place,
    choose_clips,
    cpu_seconds,
    decode_clips,
    default_videos,
    far_and_near,
)
from benchmarks.machine import describe_machine
from benchmarks.stores import SoughtVideos
from lstfe.config import Config, ModelConfig, PrepareConfig, SamplingConfig, TrainConfig
from lstfe.data.coco_video import CategoryEntry, ImageEntry, VideoAnnotations, VideoEntry, save_annotations
from lstfe.data.frames import FrameStore, decode_jpeg, write_frames
from lstfe.data.loader import PREFETCH_BATCHES, make_loader
from lstfe.data.prepared import load_split
from lstfe.data.transforms import IMAGE_MEAN, IMAGE_STD, collate, pad_to_one_size
from lstfe.image_size import model_input_size
from lstfe.types import Clip
from pipelines.tables import markdown_table


def main() -> None:
    """Print all figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, default=default_videos(), help="folder of mp4 files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clips", type=int, default=600, help="clips that one repeat loads")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine("torch", "simplejpeg", "pillow", "av"), end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder)
        paths = choose_clips(arguments.videos)
        store = _prepare(paths, prepared)
        print(
            _against_bare_decode(prepared, arguments.workers, arguments.clips, arguments.repeats), end="\n\n"
        )
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        print(_random_access(paths, store), end="\n\n")
        print(_to_a_batch(prepared))


def _prepare(paths: Sequence[Path], prepared: Path) -> FrameStore:
    """Write the clips as `prepare` does, with one object in each frame."""
    videos: list[VideoEntry] = []
    images: list[ImageEntry] = []
    for number, (name, frames) in enumerate(decode_clips(paths).items(), start=1):
        (prepared / "frames").mkdir(exist_ok=True)
        write_frames(prepared / "frames" / f"{name}.zip", enumerate(frames), PrepareConfig().jpeg_quality)
        height, width = frames[0].shape[:2]
        videos.append(VideoEntry(number, name, f"{name}.mp4", width, height, len(frames)))
        images += [ImageEntry(len(images) + 1 + i, number, i, width, height) for i in range(len(frames))]
    (prepared / "annotations").mkdir()
    annotations = VideoAnnotations(videos, images, [], [CategoryEntry(1, "drone")])
    save_annotations(annotations, prepared / "annotations" / "train.json")
    return FrameStore(prepared / "frames")


# ------------------------------------------------------------------------- loader against bare decoding


Times = tuple[float, float]
"""(wall clock, processor) seconds."""
_BATCH_SIZE = 4
_NUM_AHEAD = PREFETCH_BATCHES
"""Batches for each loader process that are left out at the start, and again at the end."""


def _config(num_clips: int, num_workers: int) -> Config:
    iterations = num_clips // _BATCH_SIZE + 2 * _NUM_AHEAD * max(1, num_workers)
    train = TrainConfig(iterations=iterations, batch_size=_BATCH_SIZE, num_workers=num_workers)
    return Config(sampling=SamplingConfig(), train=train)


def _against_bare_decode(prepared: Path, num_workers: int, num_clips: int, repeats: int) -> str:
    """Measure both in turn, several times: each ratio is of two figures taken one right after the other."""
    places = _frames_of_clips(prepared, num_clips, num_workers)
    store = FrameStore(prepared / "frames")
    jpegs = {(name, i): store.read_jpegs(name, [i])[0] for name, i in set(chain(*places))}
    shares = [[jpegs[place] for clip in places[w::num_workers] for place in clip] for w in range(num_workers)]
    num_frames = sum(len(share) for share in shares)
    loaded, bare = [], []
    for _ in range(repeats):
        bare.append(_bare_seconds(shares))
        loaded.append(_loading_seconds(prepared, num_clips, num_workers))
    rows = [
        _speeds("loader, uint8 clips handed to the training", loaded, num_clips, num_frames),
        _speeds("bare decoding of the same frames, memory to memory", bare, num_clips, num_frames),
    ]
    header = (f"{num_workers} processes", "clips/s", "frames/s", "processor ms/frame")
    ratios = [
        f"{kind} {_ratio(bare, loaded, place)}" for place, kind in enumerate(("wall clock", "processor time"))
    ]
    return f"{markdown_table(header, rows)}\n\nratio by {', by '.join(ratios)}"


def _ratio(bare: Sequence[Times], loaded: Sequence[Times], place: int) -> str:
    """Describe the ratios of neighbouring measurements, which share what else the machine did."""
    ratios = [b[place] / a[place] for a, b in zip(loaded, bare, strict=True)]
    return (
        f"{statistics.median(ratios):.3f} (median of {len(ratios)}; {min(ratios):.3f} to {max(ratios):.3f})"
    )


def _frames_of_clips(prepared: Path, num_clips: int, num_workers: int) -> list[list[Place]]:
    """Return the different frames that each measured clip shows."""
    first = _NUM_AHEAD * num_workers
    batches = make_loader(_config(num_clips, 0), *load_split(prepared, "train"), start_iteration=first)
    clips = chain.from_iterable(islice(batches, num_clips // _BATCH_SIZE))
    return [[(clip.video, index) for index in sorted(set(clip.frame_indices))] for clip in clips]


def _bare_seconds(shares: Sequence[Sequence[bytes]]) -> Times:
    """Decode each share in a process of its own: (wall seconds until the last has ended, processor seconds)."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(len(shares) + 1)
    spent = context.SimpleQueue()
    processes = [context.Process(target=_decode_all, args=(share, barrier, spent.put)) for share in shares]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - started, sum(spent.get() for _ in processes)


def _decode_all(jpegs: Sequence[bytes], barrier: Barrier, report: Callable[[float], None]) -> None:
    out = np.zeros_like(decode_jpeg(jpegs[0]))
    barrier.wait()
    started = time.process_time()
    for jpeg in jpegs:
        decode_jpeg(jpeg, out)
    report(time.process_time() - started)


def _loading_seconds(prepared: Path, num_clips: int, num_workers: int) -> Times:
    """Load `num_clips` in full swing, as much decoded ahead at the end as at the start: (wall, processor) seconds."""
    batches = make_loader(_config(num_clips, num_workers), *load_split(prepared, "train"))
    for _ in range(_NUM_AHEAD * num_workers):
        next(batches)
    started, processor = time.perf_counter(), _processor_seconds()
    for _ in range(num_clips // _BATCH_SIZE):
        next(batches)
    return time.perf_counter() - started, _processor_seconds() - processor


def _processor_seconds() -> float:
    """Return the processor time so far of this process and the loader processes it has now."""
    clock = os.sysconf("SC_CLK_TCK")
    stats = [Path(f"/proc/{child.pid}/stat") for child in multiprocessing.active_children()]
    fields = [stat.read_text(encoding="ascii").rsplit(")", 1)[1].split() for stat in stats]
    return time.process_time() + sum((int(field[11]) + int(field[12])) / clock for field in fields)


def _speeds(name: str, times: Sequence[Times], num_clips: int, num_frames: int) -> list[str]:
    wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
    milliseconds = 1000 * processor / num_frames
    return [name, f"{num_clips / wall:.0f}", f"{num_frames / wall:.0f}", f"{milliseconds:.3f}"]


# ---------------------------------------------------------------------------------------- random access


def _random_access(paths: Sequence[Path], store: FrameStore) -> str:
    """Compare frames from anywhere with neighbours, and both with seeking in the source."""
    lengths = {path.stem: len(store.frame_ids(path.stem)) for path in paths}
    sizes = [len(jpeg) for name, count in lengths.items() for jpeg in store.read_jpegs(name, range(count))]
    far, near = far_and_near(lengths, 500)
    sought = SoughtVideos({path.stem: path for path in paths})
    far_ms, near_ms = (1000 * cpu_seconds(partial(_read, store, p)) / len(p) for p in (far, near))
    seek_ms = 1000 * cpu_seconds(partial(_read, sought, far[:100]), repeats=3) / 100
    rows = [
        ["frame store, a neighbouring frame", f"{near_ms:.2f}", f"{1000 / near_ms:.0f}"],
        ["frame store, a frame from anywhere", f"{far_ms:.2f}", f"{1000 / far_ms:.0f}"],
        [
            "seeking in the source mp4 (PyAV), a frame from anywhere",
            f"{seek_ms:.2f}",
            f"{1000 / seek_ms:.0f}",
        ],
    ]
    return (
        f"{markdown_table(('one core', 'processor ms/frame', 'frames/s'), rows)}\n\n"
        f"far / neighbouring {far_ms / near_ms:.2f}; seeking / store {seek_ms / far_ms:.1f}; "
        f"{statistics.mean(sizes) / 1024:.1f} KiB a frame"
    )


def _read(store: FrameStore | SoughtVideos, places: Sequence[Place]) -> None:
    for name, index in places:
        store.read(name, index)


# -------------------------------------------------------------------------------------- decode to batch


def _to_a_batch(prepared: Path) -> str:
    """Compare JPEG -> batch by uint8 clips with the same by Pillow and floats; processor time of one core."""
    sizes = {"short side 600 (enlarged)": ModelConfig(), "short side 240 (reduced)": _SMALL}
    rows = []
    for name, model in sizes.items():
        jpegs, clip = _one_clip(prepared)
        count = len(jpegs)
        to_clip = 1000 * cpu_seconds(partial(_decode_clip, jpegs, clip)) / count
        to_batch = 1000 * cpu_seconds(partial(collate, [clip], model)) / count
        pillow = 1000 * cpu_seconds(partial(pillow_float_batch, jpegs, model)) / count
        rows.append(
            [
                name,
                f"{pillow:.2f}",
                f"{to_clip:.2f}",
                f"{to_batch:.2f}",
                f"{pillow / (to_clip + to_batch):.1f}",
                f"{pillow / to_clip:.1f}",
            ]
        )
    header = (
        "640x512 frames, processor ms/frame",
        "Pillow + float to batch",
        "decode to uint8 clip",
        "uint8 clip to batch, on the CPU",
        "ratio, CPU as device",
        "ratio of the host's work, GPU as device",
    )
    return markdown_table(header, rows)


_SMALL = ModelConfig(image_short_side=240, image_long_side=320)


def _one_clip(prepared: Path) -> tuple[list[bytes], Clip]:
    _, store = load_split(prepared, "train")
    (clip, *_) = next(make_loader(_config(4, 0), *load_split(prepared, "train")))
    return store.read_jpegs(clip.video, clip.frame_indices), clip


def _decode_clip(jpegs: Sequence[bytes], clip: Clip) -> None:
    frames = clip.frames.permute(0, 2, 3, 1).numpy()
    for jpeg, out in zip(jpegs, frames, strict=True):
        decode_jpeg(jpeg, out)


def pillow_float_batch(jpegs: Sequence[bytes], model: ModelConfig) -> Tensor:
    """Bring JPEGs into a batch as most projects do: Pillow resizes, floats are normalised, then stacked."""
    mean, std = np.array(IMAGE_MEAN, np.float32), np.array(IMAGE_STD, np.float32)
    images = []
    for jpeg in jpegs:
        with Image.open(io.BytesIO(jpeg)) as image:
            height, width = model_input_size((image.height, image.width), model)
            resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        pixels = (np.asarray(resized, np.float32) / 255 - mean) / std
        images.append(torch.from_numpy(pixels).permute(2, 0, 1))
    return pad_to_one_size([torch.stack(images)])


if __name__ == "__main__":
    main()
