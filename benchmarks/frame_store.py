"""Ways to store frames, measured on real clips: `taskset -c 1 python -m benchmarks.frame_store`.

Processor time of one core, files in the page cache. Libraries that are missing are left out with a message:
`pip install '.[bench]'` brings all.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import stores
from benchmarks.clips import (
    Place,
    choose_clips,
    cpu_seconds,
    decode_clips,
    default_videos,
    far_and_near,
)
from benchmarks.machine import describe_machine
from lstfe.data.coco_video import VideoAnnotations, load_annotations
from lstfe.data.frames import decode_jpeg
from lstfe.data.video import Frame
from pipelines.tables import markdown_table

CANDIDATES: dict[str, type[stores.Store]] = {
    "stored ZIP of JPEGs": stores.ZipOfJpegs,
    "folder of JPEGs": stores.FolderOfJpegs,
    "tar of JPEGs with index": stores.TarOfJpegs,
    "LMDB of JPEGs": stores.LmdbOfJpegs,
    "HDF5 of JPEGs": stores.Hdf5OfJpegs,
    "all-intra H.264, crf 18": stores.IntraVideos,
    "all-intra H.264, crf 26": stores.SmallIntraVideos,
    "raw": stores.RawFrames,
}
SMALL_PX = 32
"""Boxes of less than its square in area count as small objects."""


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, default=default_videos(), help="folder of mp4 files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    libraries = ("simplejpeg", "pillow", "torchvision", "opencv-python-headless", "av", "lmdb", "h5py")
    print(describe_machine(*libraries), end="\n\n")
    paths = choose_clips(arguments.videos)
    clips = decode_clips(paths)
    jpegs = {name: [_encode(frame) for frame in frames] for name, frames in clips.items()}
    print(
        f"{len(clips)} clips, {sum(map(len, clips.values()))} frames of 640x512, JPEG quality 95", end="\n\n"
    )
    print(
        _compare_stores(paths, clips, jpegs, _small_boxes(arguments.videos.parent / "coco_vid")), end="\n\n"
    )
    print(_compare_decoders([jpeg for of_clip in jpegs.values() for jpeg in of_clip[::30]]))


def _encode(frame: Frame) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------------- stores


def _compare_stores(
    paths: Sequence[Path],
    clips: Mapping[str, Sequence[Frame]],
    jpegs: Mapping[str, Sequence[bytes]],
    boxes: Mapping[Place, Sequence[tuple[int, int, int, int]]],
) -> str:
    far, near = far_and_near({name: len(frames) for name, frames in clips.items()}, 400)
    num_frames = sum(map(len, clips.values()))
    sought = stores.SoughtVideos({path.stem: path for path in paths})
    source_bytes = sum(path.stat().st_size for path in paths)
    rows = [
        [
            "source mp4, sought by PyAV",
            *_speeds(sought.read, far[:100], near[:100]),
            f"{source_bytes / num_frames / 1024:.1f}",
            *("-", "-", "-"),
        ]
    ]
    for name, kind in CANDIDATES.items():
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            try:
                store = _written(kind, Path(first), clips, jpegs)
            except ImportError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
            _written(kind, Path(second), clips, jpegs)
            files = [path for path in sorted(Path(first).rglob("*")) if path.is_file()]
            size = sum(path.stat().st_size for path in files) / num_frames / 1024
            is_same = _digest(Path(first)) == _digest(Path(second))
            errors = [_squared_errors(store, clips, place, boxes) for place in far[::4]]
            rows.append(
                [
                    name,
                    *_speeds(store.read, far, near),
                    f"{size:.1f}",
                    _decibels([whole for whole, _ in errors]),
                    _decibels([box for _, small in errors for box in small]),
                    "yes" if is_same else "no",
                ]
            )
    header = (
        "store",
        "frames/s, anywhere",
        "frames/s, neighbours",
        "KiB/frame",
        "PSNR, dB",
        f"PSNR in boxes under {SMALL_PX} px, dB",
        "same frames, same bytes",
    )
    return markdown_table(header, rows)


def _written(
    kind: type[stores.Store],
    folder: Path,
    clips: Mapping[str, Sequence[Frame]],
    jpegs: Mapping[str, Sequence[bytes]],
) -> stores.Store:
    store = kind(folder)
    for name, frames in clips.items():
        store.write(name, frames, jpegs[name])
    return store


def _speeds(
    read: Callable[[str, int], Frame], far: Sequence[Place], near: Sequence[Place]
) -> tuple[str, str]:
    def read_all(places: Sequence[Place]) -> None:
        for name, index in places:
            read(name, index)

    return (
        f"{len(far) / cpu_seconds(partial(read_all, far)):.0f}",
        f"{len(near) / cpu_seconds(partial(read_all, near)):.0f}",
    )


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _squared_errors(
    store: stores.Store,
    clips: Mapping[str, Sequence[Frame]],
    place: Place,
    boxes: Mapping[Place, Sequence[tuple[int, int, int, int]]],
) -> tuple[float, list[float]]:
    """Return the mean squared error of a whole frame, and of each small box in it."""
    name, index = place
    difference = store.read(name, index).astype(np.float32) - clips[name][index]
    squares = difference**2
    return float(squares.mean()), [
        float(squares[y1:y2, x1:x2].mean()) for x1, y1, x2, y2 in boxes.get(place, ())
    ]


def _decibels(squared_errors: Sequence[float]) -> str:
    """Return the signal-to-noise ratio of a mean squared error."""
    if not squared_errors:
        return "-"
    error = float(np.mean(squared_errors))
    return "exact" if error == 0 else f"{10 * np.log10(255**2 / error):.1f}"


def _small_boxes(folder: Path) -> dict[Place, list[tuple[int, int, int, int]]]:
    """Return (x1, y1, x2, y2) of the small objects by video and frame; none where there are no annotations."""
    boxes: dict[Place, list[tuple[int, int, int, int]]] = {}
    for path in sorted(folder.glob("*.json")):
        annotations: VideoAnnotations = load_annotations(path)
        names = {video.id: video.name for video in annotations.videos}
        places = {image.id: (names[image.video_id], image.frame_id) for image in annotations.images}
        for item in annotations.annotations:
            x, y, width, height = item.bbox
            if width * height < SMALL_PX**2:
                corners = (max(0, int(x)), max(0, int(y)), int(x + width) + 1, int(y + height) + 1)
                boxes.setdefault(places[item.image_id], []).append(corners)
    return boxes


# --------------------------------------------------------------------------------------------- decoders


def _compare_decoders(jpegs: Sequence[bytes]) -> str:
    reference = [_pillow(jpeg) for jpeg in jpegs]
    rows = []
    for name, build in DECODERS.items():
        try:
            decode = build()
        except (ImportError, OSError, RuntimeError) as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        seconds = cpu_seconds(partial(_decode_all, decode, jpegs))
        differences = [
            np.abs(decode(jpeg).astype(int) - frame) for jpeg, frame in zip(jpegs, reference, strict=True)
        ]
        worst, mean = max(int(d.max()) for d in differences), np.mean([d.mean() for d in differences])
        rows.append([name, f"{len(jpegs) / seconds:.0f}", str(worst), f"{mean:.2f}"])
    return markdown_table(
        ("JPEG decoder", "frames/s", "largest difference from Pillow", "mean difference"), rows
    )


def _decode_all(decode: Callable[[bytes], Frame], jpegs: Sequence[bytes]) -> None:
    for jpeg in jpegs:
        decode(jpeg)


def _pillow(jpeg: bytes) -> Frame:
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        return np.array(image)


def _torchvision() -> Callable[[bytes], Frame]:
    io_module = importlib.import_module("torchvision.io")

    def decode(jpeg: bytes) -> Frame:
        image = io_module.decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8))
        return np.asarray(image.permute(1, 2, 0).numpy(), np.uint8)

    return decode


def _opencv() -> Callable[[bytes], Frame]:
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)
    return lambda jpeg: np.asarray(
        cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8
    )


def _pyav() -> Callable[[bytes], Frame]:
    av = importlib.import_module("av")
    codec = av.CodecContext.create("mjpeg", "r")
    codec.thread_count = 1
    return lambda jpeg: np.asarray(codec.decode(av.Packet(jpeg))[0].to_ndarray(format="rgb24"), np.uint8)


def _simplejpeg_fast() -> Callable[[bytes], Frame]:
    simplejpeg = importlib.import_module("simplejpeg")
    return lambda jpeg: np.asarray(
        simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=True, fastupsample=True), np.uint8
    )


def _turbojpeg() -> Callable[[bytes], Frame]:
    module = importlib.import_module("turbojpeg")
    turbo = module.TurboJPEG()
    return lambda jpeg: np.asarray(turbo.decode(jpeg, pixel_format=module.TJPF_RGB), np.uint8)


DECODERS: dict[str, Callable[[], Callable[[bytes], Frame]]] = {
    "Pillow": lambda: _pillow,
    "simplejpeg": lambda: decode_jpeg,
    "simplejpeg, fast DCT and upsampling": _simplejpeg_fast,
    "torchvision.io.decode_jpeg": _torchvision,
    "OpenCV": _opencv,
    "PyAV (mjpeg)": _pyav,
    "PyTurboJPEG (needs the system's libturbojpeg)": _turbojpeg,
}


if __name__ == "__main__":
    main()
