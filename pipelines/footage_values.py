"""What drift is measured on: brightness and sharpness of frames, and what the detector finds in them.

Of a champion's own data when it is registered (the reference), and of incoming footage ever after.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import simplejpeg

from deploy.bundle import Bundle
from deploy.sources import open_source
from lstfe.data.footage import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from lstfe.data.prepared import load_split, split_path
from lstfe.evaluation.records import load_detections
from lstfe.params import load_config
from lstfe.types import ByteArray, Detections, FrameDetections
from pipelines.drift import QUANTITIES, Values, save_reference
from pipelines.operations_config import DriftConfig
from pipelines.paths import EVALUATED, PARAMS, PREPARED

_LUMA = np.array([0.299, 0.587, 0.114])  # of Rec. 601


def write_reference(tree: Path, wanted: DriftConfig, destination: Path) -> None:
    """Write what the model of a work tree was trained and tested on, for later comparisons."""
    config = load_config(tree / PARAMS)
    prepared = tree / PREPARED / config.data.name
    values = empty_values()
    seen = "train" if split_path(prepared, "train").is_file() else config.evaluate.split
    annotations, store = load_split(prepared, seen)
    for video in annotations.videos:
        for frame_id in spread(annotations.frame_ids(video.name), wanted.frames_per_video):
            add_frame(values, video.name, store.read(video.name, frame_id))
    tested, _ = load_split(prepared, config.evaluate.split)
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for record in load_detections(tree / EVALUATED / "detections.json"):
        if record.score >= wanted.score_threshold:
            size = math.sqrt(record.bbox[2] * record.bbox[3])
            found.setdefault((record.video, record.frame_id), []).append((record.score, size))
    for video in tested.videos:
        frame_ids = tested.frame_ids(video.name)[: wanted.max_frames]
        for frame_id in spread(frame_ids, wanted.frames_per_video):
            add_detections(values, video.name, found.get((video.name, frame_id), []))
    save_reference(values, destination)


def incoming_values(
    bundle: Bundle, folder: Path, footage: Iterable[Path], wanted: DriftConfig, *, jpeg_quality: int
) -> dict[str, Values]:
    """Stream videos and picture folders through the champion and return their values, by quantity and video.

    A video is named by its path from `folder`, at or below which all of `footage` lies.
    """
    values = empty_values()
    for path in footage:
        # The whole path: cameras write files of the same name day after day.
        name = folder.name if path == folder else path.relative_to(folder).as_posix()
        _add_video(values, bundle, path, name, wanted, jpeg_quality)
    return values


def find_footage(folder: Path) -> list[Path]:
    """Return the videos, and the folders of pictures, at or below a folder, in order of their names."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    pictures = {path.parent for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES}
    return sorted([*found, *pictures])


def empty_values() -> dict[str, Values]:
    """Return every quantity without a value."""
    return {name: {} for name in QUANTITIES}


def spread(frame_ids: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the frames, evenly spread."""
    places = np.linspace(0, len(frame_ids) - 1, min(count, len(frame_ids))).round().astype(int)
    return [frame_ids[place] for place in np.unique(places).tolist()]


def add_frame(values: dict[str, Values], video: str, frame: ByteArray) -> None:
    """Measure one frame, (H, W, 3) uint8 RGB."""
    values["brightness"].setdefault(video, []).append(brightness(frame))
    values["sharpness"].setdefault(video, []).append(sharpness(frame))


def add_detections(values: dict[str, Values], video: str, found: Sequence[tuple[float, float]]) -> None:
    """Take the detections of one frame into account, each as score and size in pixels."""
    values["detections_per_frame"].setdefault(video, []).append(float(len(found)))
    values["score"].setdefault(video, []).extend(score for score, _ in found)
    values["box_size_px"].setdefault(video, []).extend(size for _, size in found)


def brightness(frame: ByteArray) -> float:
    """Return the mean luma of a frame, 0 (black) to 1 (white)."""
    return float((frame.reshape(-1, 3).mean(axis=0) @ _LUMA) / 255)


def sharpness(frame: ByteArray) -> float:
    """Return the standard deviation of the Laplacian of a frame's luma (0..1): it falls as pictures blur."""
    luma = (frame.astype(np.float32) @ _LUMA.astype(np.float32)) / 255
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(laplacian.std()) if laplacian.size else 0.0


def _add_video(
    values: dict[str, Values], bundle: Bundle, path: Path, name: str, wanted: DriftConfig, jpeg_quality: int
) -> None:
    source = open_source(path, max_frames=wanted.max_frames)
    chosen = set(spread(range(source.num_frames or 0), wanted.frames_per_video))
    detector = bundle.detector("onnx", source.num_frames)
    if detector.pool:
        pool = {index: frame for index, frame in enumerate(source.read()) if index in detector.pool}
        detector.prime(pool)
    found: list[FrameDetections] = []
    for frame_index, frame in enumerate(source.read()):
        if frame_index in chosen:
            add_frame(values, name, _as_stored(frame, jpeg_quality))
        found += detector.push(frame)
    for item in [*found, *detector.finish()]:
        if item.frame_index in chosen:
            add_detections(values, name, _pairs(item.detections, wanted.score_threshold))


def _as_stored(frame: ByteArray, jpeg_quality: int) -> ByteArray:
    """Return a frame as `prepare` keeps the reference's: compression blurs, and must blur both alike."""
    content = simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=jpeg_quality, colorspace="RGB")
    decoded: ByteArray = simplejpeg.decode_jpeg(content, colorspace="RGB")
    return decoded


def _pairs(detections: Detections, score_threshold: float) -> list[tuple[float, float]]:
    boxes = detections.boxes.astype(np.float64)
    sizes = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    pairs = zip(detections.scores.tolist(), sizes.tolist(), strict=True)
    return [(score, size) for score, size in pairs if score >= score_threshold]
