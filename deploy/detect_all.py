"""Detect on one of many videos, into a result file of its own, and merge such files.

    OUTPUT/videos/NAME.json     one video: what made it, and its detections
    OUTPUT/journal.jsonl        who detected on which video, when and how long
    OUTPUT/detections.json      all of them, as `lstfe detect` writes one

A result is written once, whole, under its final name. It carries a key of the bundle's and the video's content, so
that a video is done again only when one of them has changed: whoever runs it, wherever, and after whatever fault.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from deploy.bundle import MANIFEST_FILE, Bundle, DetectorBuilder, open_bundle
from deploy.detect import detections_of
from deploy.output import DETECTIONS_FILE
from deploy.sources import open_source
from deploy.tensorrt.manifest import ENGINE_FILE, ENGINES_DIR
from deploy.video_files import VideoFile
from lstfe.errors import UserError
from lstfe.evaluation.records import to_records
from lstfe.whole_files import new_file

JOURNAL_FILE = "journal.jsonl"
_VIDEOS = "videos"
_loading = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionJob:
    """What is the same for all videos; only plain values, so that it travels to any worker."""

    bundle: str
    """Absolute folder, seen by every worker."""
    output: str
    """Absolute folder, seen by every worker."""
    backend: str = "onnx"
    num_threads: int = 1
    """Threads of a detector. Fixed, because more of them add up in another order: the last bits would differ."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoOutcome:
    """What became of one video."""

    name: str
    state: Literal["detected", "up to date", "failed"]
    num_frames: int = 0
    num_detections: int = 0
    reason: str = ""
    """Why it failed, in one line."""


def detect_video(video: VideoFile, job: DetectionJob) -> VideoOutcome:
    """Detect on one video unless its result is there; a video that cannot be read is an outcome, not an error.

    Raises BundleError, as then no video can be done.
    """
    digest = _digest(job)
    bundle = _open_once(job.bundle, digest)
    path = result_path(job, video.name)
    try:
        key = _result_key(bundle, job, video)
        known = _read_result(path)
        if known is not None and known["key"] == key:
            return _outcome(known, "up to date")
        _note(job, video, "started")
        begin = time.perf_counter()
        with video.local() as local:
            result = {"video": video.name, "key": key, **_detect(bundle, digest, job, video, local)}
    except UserError as error:
        return VideoOutcome(name=video.name, state="failed", reason=str(error))
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, is_durable=True) as partial:
        partial.write_text(json.dumps(result, ensure_ascii=False) + "\n", encoding="utf-8")
    _note(job, video, "finished", seconds=round(time.perf_counter() - begin, 3))
    return _outcome(result, "detected")


def merge_results(job: DetectionJob, names: Iterable[str]) -> Path:
    """Write the detections of the named videos, in this order, as one detections.json; return its path."""
    path = Path(job.output) / DETECTIONS_FILE
    is_first = True
    with new_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write("[")
        for name in names:
            for record in (_read_result(result_path(job, name)) or {"detections": []})["detections"]:
                file.write(("\n" if is_first else ",\n") + json.dumps(record, ensure_ascii=False))
                is_first = False
        file.write("]\n" if is_first else "\n]\n")
    return path


def result_path(job: DetectionJob, name: str) -> Path:
    """Return where the result of a video lies."""
    return Path(job.output) / _VIDEOS / f"{name}.json"


def _detect(bundle: Bundle, digest: str, job: DetectionJob, video: VideoFile, local: Path) -> dict[str, Any]:
    frames = open_source(local)
    with _loading:  # threads that start together wait for the one network
        build = _load_once(job.bundle, digest, job.backend, job.num_threads)
    detector = build(frames.num_frames)
    records: list[dict[str, Any]] = []
    num_frames = 0
    for detections in detections_of(frames, detector):
        found = to_records(detections, video=video.name, frame_id=num_frames, label_names=bundle.label_names)
        records += map(asdict, found)
        num_frames += 1
    return {
        "model_version": bundle.manifest.model_version,
        "num_frames": num_frames,
        "frame_rate": frames.frame_rate,
        "detections": records,
    }


@lru_cache(maxsize=2)
def _open_once(directory: str, digest: str) -> Bundle:
    """Open a bundle, all of whose files are hashed then, once a process; a changed one is opened anew."""
    return open_bundle(directory)


@lru_cache(maxsize=1)
def _load_once(directory: str, digest: str, backend: str, num_threads: int) -> DetectorBuilder:
    """Load the network of a bundle once a process, for all of its videos."""
    return _open_once(directory, digest).detectors(backend, num_threads=num_threads)


def _digest(job: DetectionJob) -> str:
    """Return a hash over what says what is in the bundle and, where engines run, which engines it has."""
    bundle = Path(job.bundle)
    paths = [bundle / MANIFEST_FILE]
    if job.backend == "tensorrt":
        paths += sorted(bundle.glob(f"{ENGINES_DIR}/*/{ENGINE_FILE}"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths if path.is_file())).hexdigest()


def _result_key(bundle: Bundle, job: DetectionJob, video: VideoFile) -> str:
    files = sorted((name, stamp.sha256) for name, stamp in bundle.manifest.files.items())
    made_by = json.dumps([files, job.backend, job.num_threads, video.fingerprint()])
    return hashlib.sha256(made_by.encode()).hexdigest()


def _read_result(path: Path) -> dict[str, Any] | None:
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if "key" in result and "detections" in result else None


def _outcome(result: dict[str, Any], state: Literal["detected", "up to date"]) -> VideoOutcome:
    return VideoOutcome(
        name=result["video"],
        state=state,
        num_frames=result["num_frames"],
        num_detections=len(result["detections"]),
    )


def _note(job: DetectionJob, video: VideoFile, event: str, **more: float) -> None:
    """Append one line to the journal; one write, so that lines of several processes do not mix."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    entry = {"video": video.name, "event": event, "worker": worker, "time": round(time.time(), 3), **more}
    path = Path(job.output) / JOURNAL_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())
