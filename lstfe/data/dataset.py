"""Training clips from a prepared data set, decoded in loader processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lstfe.config import Config, ConfigError
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.frames import FrameStore
from lstfe.data.prepared import load_split
from lstfe.data.sampling import ClipSampler
from lstfe.errors import UserError
from lstfe.types import Clip, Targets


class ClipDataset(Dataset[Clip]):
    """Clip number -> Clip; any process may read any clip."""

    def __init__(self, annotations: VideoAnnotations, store: FrameStore, sampler: ClipSampler) -> None:
        self._annotations = annotations
        self._store = store
        self._sampler = sampler

    def __getitem__(self, clip_number: int) -> Clip:
        """Decode one clip; each frame is decoded once, however often the clip shows it."""
        plan = self._sampler.clip(clip_number)
        decoded = {index: self._store.read(plan.video, index) for index in set(plan.frame_indices)}
        frames = np.stack([decoded[index] for index in plan.frame_indices])  # (T, H, W, 3)
        boxes, labels = self._annotations.boxes(plan.video, plan.frame_indices[0])
        clip = Clip(
            frames=torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(),  # (T, 3, H, W)
            layout=plan.layout,
            targets=Targets(torch.from_numpy(boxes), torch.from_numpy(labels)),
            video=plan.video,
            frame_indices=plan.frame_indices,
        )
        return flip_clip(clip) if plan.flip else clip


def flip_clip(clip: Clip) -> Clip:
    """Mirror all frames and the targets of a clip left to right."""
    width = clip.frames.shape[-1]
    boxes = clip.targets.boxes.clone()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    targets = Targets(boxes, clip.targets.labels)
    return Clip(clip.frames.flip(-1), clip.layout, targets, clip.video, clip.frame_indices)


def make_loader(
    config: Config,
    prepared_dir: Path,
    split: str = "train",
    *,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[list[Clip]]:
    """Yield this rank's clips of each iteration from `start_iteration` to the end of the training.

    Iteration i of all ranks together shows clips [i*B, (i+1)*B), B = train.batch_size; each rank takes an
    equal, contiguous share. Neither the number of workers nor that of ranks changes which clips those are.
    """
    batch_size = config.train.batch_size
    if batch_size % world_size:
        raise ConfigError(
            f"train.batch_size {batch_size} cannot be shared equally by {world_size} processes; "
            "choose a multiple of their number"
        )
    annotations, store = load_split(prepared_dir, split)
    sampler = ClipSampler(
        [(name, annotations.frame_ids(name)) for name in annotations.images_by_video],
        config.sampling,
        seed=config.train.seed,
        flip_probability=config.train.flip_probability,
        num_still_clips=config.train.still_iterations * batch_size,
    )
    share = batch_size // world_size
    firsts = range(
        start_iteration * batch_size + rank * share, config.train.iterations * batch_size, batch_size
    )
    num_workers = config.train.num_workers
    loader = DataLoader(
        ClipDataset(annotations, store, sampler),
        batch_sampler=[list(range(first, first + share)) for first in firsts],
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        prefetch_factor=4 if num_workers else None,
        pin_memory=torch.cuda.is_available(),
        collate_fn=list,
    )
    return _with_plain_errors(loader)


def _with_plain_errors(batches: Iterable[list[Clip]]) -> Iterator[list[Clip]]:
    """Pass batches on; the message of a fault loses the traceback that PyTorch's processes put around it."""
    try:
        yield from batches
    except UserError as error:
        kind, last_line = type(error), str(error).strip().splitlines()[-1]
        raise kind(last_line.removeprefix(f"{kind.__module__}.{kind.__name__}: ")) from None
