"""How long scoring takes beside pycocotools and faster-coco-eval, on the same two files, and whether all agree.

    python -m benchmarks.scoring [--frames 20000] [--per-frame 10] [--repeat 5] [--output FILE]

Ground truth (COCO-VID with tracks) and detections are made from a seed. Each tool runs in a process of its own and is
timed in two parts: reading both files, and all its figures. The other two compute the twelve COCO figures; ours
computes those, its further ones, and the presets mega_vid and ilsvrc with motion. Times are processor seconds, so
that other work on the machine does not count; all three use one thread. Exit code 1 where figures differ by
more than 1e-9, or ours is less than 20 (pycocotools) or 5 times (faster-coco-eval) as fast. Needs the extras `dev`
and `bench`. Writes a table in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fresh_process import in_fresh_process
from benchmarks.machine import describe_machine

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve that pycocotools summarises, in its order."""
PRESETS = ("coco", "mega_vid", "ilsvrc")
LEAST_RATIOS = {"pycocotools": 20.0, "faster-coco-eval": 5.0}
MAX_DIFFERENCE = 1e-9
VIDEO_FRAMES = 200
NUM_CLASSES = 3
TRACKS = 4  # a video

Result = dict[str, Any]
"""seconds_reading and seconds_scoring of each repetition, and the twelve figures."""


def write_files(folder: Path, num_frames: int, per_frame: int) -> tuple[Path, Path]:
    """Write truth.json and found.json: objects that move, four detections a frame near them, the others astray."""
    random = np.random.default_rng(0)
    truth = _ground_truth(random, num_frames)
    of_frame: dict[int, list[Mapping[str, Any]]] = {}
    for entry in truth["annotations"]:
        of_frame.setdefault(entry["image_id"], []).append(entry)
    found = [
        _detection(random, image, of_frame.get(image, []), number)
        for image in range(1, num_frames + 1)
        for number in range(per_frame)
    ]
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))
    return folder / "truth.json", folder / "found.json"


def _ground_truth(random: np.random.Generator, num_frames: int) -> dict[str, Any]:
    objects: list[dict[str, Any]] = []
    num_videos = -(-num_frames // VIDEO_FRAMES)
    for track in range(TRACKS * num_videos):
        video, start, end = track // TRACKS, *sorted(random.integers(0, VIDEO_FRAMES, 2).tolist())
        place, size = random.uniform(50, 400, 2), np.exp(random.uniform(np.log(6), np.log(110), 2))
        speed = size * random.choice([0.002, 0.03, 0.2]) * random.choice([-1, 1], 2)
        for frame in range(start, end + 1):
            image = video * VIDEO_FRAMES + frame + 1
            if image > num_frames:
                break
            place = place + speed
            # Some fly in pairs, so close that detections have a choice.
            for member in range(2 if track % TRACKS == 0 else 1):
                corner = place + 0.2 * member * size
                objects.append(
                    {"id": len(objects) + 1, "image_id": image, "video_id": video + 1,
                     "category_id": 1 + track % NUM_CLASSES, "bbox": [*corner.tolist(), *size.tolist()],
                     "area": float(size.prod()), "iscrowd": 0, "instance_id": 2 * track + member + 1}
                )  # fmt: skip
    images = [
        {"id": n + 1, "video_id": n // VIDEO_FRAMES + 1, "frame_id": n % VIDEO_FRAMES}
        for n in range(num_frames)
    ]
    return {
        "videos": [{"id": n + 1, "name": f"video_{n}"} for n in range(num_videos)],
        "images": images,
        "annotations": objects,
        "categories": [{"id": n, "name": f"class_{n}"} for n in range(1, NUM_CLASSES + 1)],
    }


def _detection(
    random: np.random.Generator, image: int, objects: list[Mapping[str, Any]], number: int
) -> dict[str, Any]:
    if objects and number < 4:
        entry = objects[number % len(objects)]
        size = np.array(entry["bbox"][2:] * 2)
        box = np.array(entry["bbox"]) + size * random.normal(0, 0.08, 4)
        category, score = entry["category_id"], random.beta(4, 2)
    else:
        box = np.array([*random.uniform(0, 500, 2), *np.exp(random.uniform(np.log(6), np.log(110), 2))])
        category, score = 1 + int(random.integers(NUM_CLASSES)), random.beta(1, 4)
    box[2:] = np.maximum(box[2:], 1)
    return {
        "image_id": image, "category_id": category, "bbox": box.round(3).tolist(), "score": round(float(score), 6),
    }  # fmt: skip


def time_ours(truth: Path, found: Path) -> Result:
    """Read as `lstfe score` does, then score by the three presets."""
    from lstfe.evaluation.protocols import score_frames
    from lstfe.evaluation.score_files import read_scored

    started = time.process_time()
    frames = read_scored(truth, found).frames
    read = time.process_time()
    scores = score_frames(frames, PRESETS)
    ended = time.process_time()
    return _result(started, read, ended, [scores["coco"][name] for name in FIGURES])


def time_pycocotools(truth: Path, found: Path) -> Result:
    """COCO(), loadRes(), then evaluate(), accumulate(), summarize()."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _time_coco(COCO, COCOeval, truth, found)


def time_faster_coco_eval(truth: Path, found: Path) -> Result:
    """The same calls."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _time_coco(COCO, COCOeval_faster, truth, found)


def _time_coco(index: Any, evaluator: Any, truth: Path, found: Path) -> Result:
    with contextlib.redirect_stdout(io.StringIO()):
        started = time.process_time()
        known = index(str(truth))
        results = known.loadRes(str(found))
        read = time.process_time()
        evaluation = evaluator(known, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        ended = time.process_time()
    figures = [None if value == -1 else float(value) for value in evaluation.stats[: len(FIGURES)]]
    return _result(started, read, ended, figures)


def _result(started: float, read: float, ended: float, figures: list[float | None]) -> Result:
    return {
        "reading": read - started,
        "scoring": ended - read,
        "figures": dict(zip(FIGURES, figures, strict=True)),
    }


TOOLS: dict[str, Callable[[Path, Path], Result]] = {
    "pycocotools": time_pycocotools,
    "faster-coco-eval": time_faster_coco_eval,
    "ours": time_ours,
}


def measure(tool: str, files: tuple[Path, Path], repeat: int) -> Result:
    """Run a tool `repeat` times, each in a new process; return medians of the seconds, and its figures."""
    runs = [in_fresh_process(TOOLS[tool], *files) for _ in range(repeat)]
    medians = {part: statistics.median(run[part] for run in runs) for part in ("reading", "scoring")}
    return {**medians, "whole": sum(medians.values()), "figures": runs[0]["figures"]}


def largest_difference(figures: Mapping[str, float | None], others: Mapping[str, float | None]) -> float:
    """Return the largest difference of two sets of figures; infinite where one is null and the other is not."""
    pairs = [(figures[name], others[name]) for name in FIGURES]
    if any((a is None) != (b is None) for a, b in pairs):
        return float("inf")
    return max(abs(a - b) for a, b in pairs if a is not None and b is not None)


def report(results: Mapping[str, Result]) -> tuple[str, list[str]]:
    """Return the table, and what is not as it should be."""
    ours = results["ours"]
    lines = [
        "| tool | reading, s | figures, s | both, s | ours is faster: figures | both | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    faults = []
    for tool, result in results.items():
        times = " | ".join(f"{result[part]:.3f}" for part in ("reading", "scoring", "whole"))
        if tool == "ours":
            lines.append(f"| {tool} | {times} | | | |")
            continue
        ratios = [result[part] / ours[part] for part in ("scoring", "whole")]
        difference = largest_difference(ours["figures"], result["figures"])
        lines.append(f"| {tool} | {times} | {ratios[0]:.0f}x | {ratios[1]:.0f}x | {difference:.1e} |")
        if min(ratios) < LEAST_RATIOS[tool]:
            faults.append(
                f"only {min(ratios):.1f} times as fast as {tool}, expected {LEAST_RATIOS[tool]:.0f}"
            )
        if difference > MAX_DIFFERENCE:
            faults.append(f"differs from {tool} by {difference:.1e}, expected {MAX_DIFFERENCE:.0e} at most")
    return "\n".join(lines), faults


def main() -> None:
    """Measure, print and write the table; exit 1 where ours is slow or differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--per-frame", type=int, default=10, help="detections a frame")
    parser.add_argument("--repeat", type=int, default=5, help="of ours; the others run at most three times")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), arguments.frames, arguments.per_frame)
        number = len(json.loads(files[0].read_text())["annotations"])
        results = {}
        for tool in TOOLS:
            results[tool] = measure(
                tool, files, arguments.repeat if tool == "ours" else min(arguments.repeat, 3)
            )
            print(tool, {part: round(results[tool][part], 3) for part in ("reading", "scoring")}, flush=True)
    table, faults = report(results)
    size = f"{arguments.frames} frames, {number} objects, {arguments.frames * arguments.per_frame} detections"
    text = f"{describe_machine('numpy')}\n\n{size}\n\n{table}\n"
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
    if faults:
        raise SystemExit("; ".join(faults))


if __name__ == "__main__":
    main()
