"""Detection on a split by one process or many, resumable: finished videos lie in a folder until all are there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from lstfe.config import Config
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.evaluation.inference import ReportProgress, detect_videos, frames_to_stream
from lstfe.evaluation.records import DetectionError, DetectionRecord, load_detections, save_detections
from lstfe.model.detector import LSTFENet
from lstfe.training.determinism import fixed_threads
from lstfe.training.distributed import broadcast_from_main, joined_world
from lstfe.whole_files import new_file

logger = logging.getLogger(__name__)

_TIMEOUT = timedelta(days=1)
"""Longest wait of a process for the one whose videos take longest."""


def detect_in_shards(
    model: LSTFENet,
    config: Config,
    annotations: VideoAnnotations,
    store: FrameStore,
    *,
    state_dir: Path,
    progress: ReportProgress | None = None,
) -> list[DetectionRecord] | None:
    """Detect on a split: what `detect_split` returns, whatever the number of processes; None in all but rank 0.

    Under torchrun every process calls this alike. `state_dir` must be one folder for all, and of one model, data and
    configuration alone: a video found there is not detected again. The caller removes it. `progress` is of rank 0.
    """
    stretches = frames_to_stream(annotations)
    with joined_world(_TIMEOUT) as world, fixed_threads(config.evaluate.num_threads):
        state_dir.mkdir(parents=True, exist_ok=True)
        # One process says what is left: each on its own could see what another has finished meanwhile.
        left = broadcast_from_main([video for video in stretches if _load(state_dir, video) is None])
        own = share_out({video: len(stretches[video]) for video in left}, world.size)[world.rank]
        wanted = {video: stretches[video] for video in own}
        report = progress if world.is_main else None
        model.to(world.device)
        for video, records in detect_videos(model, config, annotations, store, wanted, progress=report):
            with new_file(_path(state_dir, video), is_durable=True) as partial:
                save_detections(records, partial)
    if not world.is_main:
        return None
    return [record for video in stretches for record in load_detections(_path(state_dir, video))]


def share_out(lengths: Mapping[str, int], num_shares: int) -> list[list[str]]:
    """Share videos out by their lengths: the longest first, each to the share that has least so far."""
    shares: list[list[str]] = [[] for _ in range(num_shares)]
    loads = [0] * num_shares
    for video in sorted(lengths, key=lambda video: -lengths[video]):
        least = loads.index(min(loads))
        shares[least].append(video)
        loads[least] += lengths[video]
    return shares


def _path(state_dir: Path, video: str) -> Path:
    return state_dir / f"{video}.json"


def _load(state_dir: Path, video: str) -> list[DetectionRecord] | None:
    path = _path(state_dir, video)
    if not path.is_file():
        return None
    try:
        return load_detections(path)
    except DetectionError as error:
        logger.warning("%s: is detected again (%s)", video, error)
        return None
