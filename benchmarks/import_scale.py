"""How long importers take and how much memory they need on a generated tree: 1,000 videos, 200,000 frames.

    python -m benchmarks.import_scale [--formats imagenet_vid,mot] [--videos 1000] [--frames 200] [--output FILE]

Each frame has one or two objects; there is no picture (`--annotations-only`). Each import runs in a process of
its own, whose peak memory (resident set) is what counts. Writes a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

from benchmarks.fresh_process import Spent, in_fresh_process, measured
from benchmarks.machine import describe_machine

Boxes = list[tuple[int, int, int, int]]
"""xyxy pixels, x2 and y2 exclusive, one a track."""

IMAGE_SIZE = (480, 640)
MAX_SECONDS = 120
MAX_MIB = 1024


def boxes_of(video: int, frame: int) -> Boxes:
    """Return the boxes of one frame: one small object in each, another in every third."""
    x, y = (7 * video + 2 * frame) % 600, (11 * video + frame) % 440
    boxes = [(x, y, x + 14, y + 10)]
    if frame % 3 == 0:
        boxes.append((600 - x, 440 - y, 618 - x, 452 - y))
    return boxes


def write_fl_drones(source: Path, num_videos: int, num_frames: int) -> None:
    """One text a video."""
    source.mkdir()
    for video in range(num_videos):
        rows = (
            (frame, len(boxes), *(side for box in boxes for side in box))
            for frame, boxes in _frames(video, num_frames)
        )
        (source / f"{_name(video)}.txt").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))


def write_imagenet_vid(source: Path, num_videos: int, num_frames: int) -> None:
    """One XML file a frame, in the layout of ILSVRC2015."""
    names = ("n02691156", "n01503061")
    for video in range(num_videos):
        part = f"train/ILSVRC2015_VID_train_{video % 4:04d}" if video % 8 else "val"
        folder = source / "Annotations" / "VID" / part / f"ILSVRC2015_{_name(video)}"
        folder.mkdir(parents=True)
        for frame, boxes in _frames(video, num_frames):
            objects = "".join(
                f"\t<object>\n\t\t<trackid>{track}</trackid>\n\t\t<name>{names[track]}</name>\n\t\t<bndbox>\n"
                f"\t\t\t<xmax>{x2 - 1}</xmax>\n\t\t\t<xmin>{x1}</xmin>\n\t\t\t<ymax>{y2 - 1}</ymax>\n"
                f"\t\t\t<ymin>{y1}</ymin>\n\t\t</bndbox>\n\t\t<occluded>0</occluded>\n"
                "\t\t<generated>0</generated>\n\t</object>\n"
                for track, (x1, y1, x2, y2) in enumerate(boxes)
            )
            (folder / f"{frame:06d}.xml").write_text(
                f"<annotation>\n\t<folder>{part}</folder>\n\t<filename>{frame:06d}</filename>\n"
                f"\t<size>\n\t\t<width>{IMAGE_SIZE[1]}</width>\n\t\t<height>{IMAGE_SIZE[0]}</height>\n\t</size>\n"
                f"{objects}</annotation>\n"
            )


def write_coco_video(source: Path, num_videos: int, num_frames: int) -> None:
    """One JSON file for all, its annotations before everything they refer to."""
    source.mkdir()
    height, width = IMAGE_SIZE
    with (source / "all.json").open("w") as file:
        ids = ((video, frame) for video in range(num_videos) for frame in range(num_frames))
        rows = (
            {"id": 2 * (video * num_frames + frame) + track, "image_id": video * num_frames + frame,
             "category_id": 1, "instance_id": 2 * video + track, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for video, frame in ids for track, (x1, y1, x2, y2) in enumerate(boxes_of(video, frame))
        )  # fmt: skip
        images = (
            {"id": video * num_frames + frame, "video_id": video, "frame_id": frame}
            for video in range(num_videos)
            for frame in range(num_frames)
        )
        videos = (
            {"id": video, "name": _name(video), "width": width, "height": height, "num_frames": num_frames}
            for video in range(num_videos)
        )
        lists = {"annotations": rows, "images": images, "videos": videos}
        for name, values in lists.items():
            file.write(f'{"{" if name == "annotations" else ","}"{name}":[')
            for place, row in enumerate(values):
                file.write(("," if place else "") + json.dumps(row))
            file.write("]\n")
        file.write(',"categories":[{"id":1,"name":"drone"}]}\n')


def write_mot(source: Path, num_videos: int, num_frames: int) -> None:
    """One gt.txt and seqinfo.ini a sequence."""
    for video in range(num_videos):
        folder = source / _name(video)
        (folder / "gt").mkdir(parents=True)
        rows = [
            f"{frame + 1},{track + 1},{x1 + 1},{y1 + 1},{x2 - x1},{y2 - y1},1,1,1\n"
            for frame, boxes in _frames(video, num_frames)
            for track, (x1, y1, x2, y2) in enumerate(boxes)
        ]
        (folder / "gt" / "gt.txt").write_text("".join(rows))
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nname={_name(video)}\nimDir=img1\nframeRate=30\nseqLength={num_frames}\n"
            f"imWidth={IMAGE_SIZE[1]}\nimHeight={IMAGE_SIZE[0]}\nimExt=.jpg\n"
        )


def write_cvat(source: Path, num_videos: int, num_frames: int) -> None:
    """One XML file a video."""
    source.mkdir()
    for video in range(num_videos):
        tracks: dict[int, list[str]] = {}
        for frame, boxes in _frames(video, num_frames):
            # A track that ends says so in the next frame, or it would be interpolated.
            gone = [] if len(boxes) == 2 or frame % 3 != 1 else boxes_of(video, frame - 1)[1:]
            for track, (x1, y1, x2, y2) in enumerate([*boxes, *gone]):
                tracks.setdefault(track, []).append(
                    f'    <box frame="{frame}" outside="{int(track >= len(boxes))}" occluded="0" keyframe="1" '
                    f'xtl="{x1}.00" ytl="{y1}.00" xbr="{x2}.00" ybr="{y2}.00" z_order="0"/>\n'
                )
        body = "".join(
            f'  <track id="{track}" label="drone">\n{"".join(rows)}  </track>\n'
            for track, rows in tracks.items()
        )
        (source / f"{_name(video)}.xml").write_text(
            "<?xml version='1.0' encoding='utf-8'?>\n<annotations>\n  <version>1.1</version>\n"
            f"  <meta><task><name>{video}</name><size>{num_frames}</size><original_size>"
            f"<width>{IMAGE_SIZE[1]}</width><height>{IMAGE_SIZE[0]}</height></original_size></task></meta>\n"
            f"{body}</annotations>\n"
        )


def write_voc(source: Path, num_videos: int, num_frames: int) -> None:
    """One XML file a frame, one folder a video."""
    for video in range(num_videos):
        folder = source / "Annotations" / _name(video)
        folder.mkdir(parents=True)
        for frame, boxes in _frames(video, num_frames):
            objects = "".join(
                f"<object><name>drone</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
                f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
                for x1, y1, x2, y2 in boxes
            )
            (folder / f"{frame:06d}.xml").write_text(
                f"<annotation>\n<size><width>{IMAGE_SIZE[1]}</width><height>{IMAGE_SIZE[0]}</height></size>\n"
                f"{objects}</annotation>\n"
            )


WRITERS: dict[str, Callable[[Path, int, int], None]] = {
    "fl_drones": write_fl_drones,
    "imagenet_vid": write_imagenet_vid,
    "coco_video": write_coco_video,
    "mot": write_mot,
    "cvat": write_cvat,
    "voc": write_voc,
}


def measure(data_format: str, num_videos: int, num_frames: int) -> Spent:
    """Generate a tree, import it in a process of its own, and return what that took."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        WRITERS[data_format](source, num_videos, num_frames)
        found, spent = in_fresh_process(_import, data_format, source, Path(folder) / "raw")
    expected = {
        "videos": num_videos,
        "frames": num_videos * num_frames,
        "boxes": num_boxes(num_videos, num_frames),
    }
    if found != expected:
        raise SystemExit(f"{data_format}: imported {found}, expected {expected}")
    return spent


def num_boxes(num_videos: int, num_frames: int) -> int:
    """Return how many boxes a generated tree has."""
    return num_videos * sum(len(boxes_of(0, frame)) for frame in range(num_frames))


def _import(data_format: str, source: Path, raw: Path) -> tuple[dict[str, int], Spent]:
    """Return how many videos, frames and boxes came over, and what that took."""
    from lstfe.data.raw import ImportOptions

    importer = getattr(import_module(f"lstfe.data.importers.{data_format}"), f"import_{data_format}")
    split = "auto" if data_format == "imagenet_vid" else "none"
    report, spent = measured(importer, source, raw, ImportOptions(split=split, annotations_only=True))
    parts = report["splits"].values()
    return {name: sum(part[name] for part in parts) for name in ("videos", "frames", "boxes")}, spent


def _frames(video: int, num_frames: int) -> Iterator[tuple[int, Boxes]]:
    return ((frame, boxes_of(video, frame)) for frame in range(num_frames))


def _name(video: int) -> str:
    return f"Video_{video:04d}"


def main() -> None:
    """Measure, print and write the table; exit 1 where an import passes the limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--formats", default=",".join(WRITERS))
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    lines = [
        "| format | videos | frames | boxes | seconds | processor seconds | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    too_much = []
    for data_format in arguments.formats.split(","):
        spent = measure(data_format, arguments.videos, arguments.frames)
        boxes = num_boxes(arguments.videos, arguments.frames)
        lines.append(
            f"| {data_format} | {arguments.videos} | {arguments.videos * arguments.frames} | {boxes} "
            f"| {spent.seconds:.1f} | {spent.processor_seconds:.1f} | {spent.peak_mib:.0f} MiB |"
        )
        print(lines[-1], flush=True)
        if spent.seconds > MAX_SECONDS or spent.peak_mib > MAX_MIB:
            too_much.append(data_format)
    text = "\n".join([describe_machine(), "", *lines]) + "\n"
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
    print(text)
    if too_much:
        raise SystemExit(f"more than {MAX_SECONDS} s or {MAX_MIB} MiB: {', '.join(too_much)}")


if __name__ == "__main__":
    main()
