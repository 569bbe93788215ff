"""Batches of training clips, decoded ahead in loader processes."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from lstfe.config import Config, ConfigError
from lstfe.data.clip_memory import ClipMemory
from lstfe.data.coco_video import VideoAnnotations
from lstfe.data.dataset import ClipDataset, ClipRecord
from lstfe.data.frames import FrameStore
from lstfe.data.sampling import ClipSampler
from lstfe.errors import UserError
from lstfe.types import Clip

PREFETCH_BATCHES = 4
"""Batches that each loader process decodes ahead."""
_HELD_BATCHES = 2
"""Batches that the training holds at a time: the one it works on and the one it fetches."""


def make_loader(
    config: Config,
    annotations: VideoAnnotations,
    store: FrameStore,
    *,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[list[Clip]]:
    """Yield this rank's clips of a split, iteration by iteration, from `start_iteration` to the end of the training.

    Iteration i of all ranks together shows clips [i*B, (i+1)*B), B = train.batch_size; each rank takes an
    equal, contiguous share. Neither the number of workers nor that of ranks changes which clips those are.
    """
    sampler = _sampler(annotations, config)
    batches = _clip_numbers(config, start_iteration, rank, world_size)
    clips = ClipDataset(annotations, store, sampler)
    if config.train.num_workers == 0:
        return ([clips[number] for number in batch] for batch in batches)
    memory = _clip_memory(config, annotations, num_clips=config.train.batch_size // world_size)
    return _with_plain_errors(_decoded_ahead(clips, batches, memory, config.train.num_workers))


def _clip_numbers(config: Config, start_iteration: int, rank: int, world_size: int) -> list[range]:
    """Return the numbers of this rank's clips, batch by batch."""
    batch_size = config.train.batch_size
    if batch_size % world_size:
        raise ConfigError(
            f"train.batch_size {batch_size} cannot be shared equally by {world_size} processes; "
            "choose a multiple of their number"
        )
    share = batch_size // world_size
    starts = (i * batch_size + rank * share for i in range(start_iteration, config.train.iterations))
    return [range(first, first + share) for first in starts]


def _sampler(annotations: VideoAnnotations, config: Config) -> ClipSampler:
    return ClipSampler(
        [(name, annotations.frame_ids(name)) for name in annotations.images_by_video],
        config.sampling,
        seed=config.train.seed,
        current_frames={name: annotations.current_frames(name) for name in annotations.images_by_video},
        flip_probability=config.train.flip_probability,
        num_still_clips=config.train.still_iterations * config.train.batch_size,
    )


# ------------------------------------------------------------------------------------ loader processes


@dataclass(frozen=True, slots=True)
class _SharedClip:
    """A clip on its way from a loader process: its frames stay where they were decoded."""

    memory_id: int
    slot: int
    shape: tuple[int, ...]
    record: ClipRecord

    def open(self) -> Clip:
        """Return the clip; the slot is released with the last of its frames."""
        return self.record.with_frames(_MEMORIES[self.memory_id].borrow(self.slot, self.shape))

    def pin_memory(self) -> Clip:
        """Return the clip with its tensors copied to where a GPU can fetch them by itself."""
        return self.open().pin_memory()


_MEMORIES: weakref.WeakValueDictionary[int, ClipMemory] = weakref.WeakValueDictionary()
"""By id: PyTorch's pinning thread opens clips, and hands over nothing but the clip."""


class _SharingDataset(Dataset[Clip | _SharedClip]):
    """What a loader process runs: clips decoded straight into the shared memory."""

    def __init__(self, clips: ClipDataset, memory: ClipMemory) -> None:
        self._clips, self._memory = clips, memory

    def __getitem__(self, clip_number: int) -> Clip | _SharedClip:
        worker = get_worker_info()
        slot = None if worker is None else self._memory.claim(worker.id)
        if slot is None:  # someone keeps more clips than a training does
            return self._clips[clip_number]
        try:
            frames, record = self._clips.read(clip_number, partial(self._memory.array, slot))
        except BaseException:
            self._memory.release(slot)
            raise
        return _SharedClip(id(self._memory), slot, frames.shape, record)


def _clip_memory(config: Config, annotations: VideoAnnotations, *, num_clips: int) -> ClipMemory | None:
    """Return memory for whatever is decoded, ahead or in use; None where processes cannot inherit it."""
    if not sys.platform.startswith("linux"):
        return None
    num_frames = 1 + config.sampling.num_short_term + config.sampling.num_candidates
    slot_bytes = num_frames * max(video.height * video.width * 3 for video in annotations.videos)
    slots_per_worker = (PREFETCH_BATCHES + _HELD_BATCHES) * num_clips
    try:
        return ClipMemory(
            num_workers=config.train.num_workers, slots_per_worker=slots_per_worker, slot_bytes=slot_bytes
        )
    except (OSError, OverflowError):
        size = config.train.num_workers * slots_per_worker * slot_bytes / 2**30
        raise ConfigError(
            f"train.batch_size {config.train.batch_size} needs {size:.0f} GiB for the clips that "
            f"{config.train.num_workers} workers (train.num_workers) decode ahead, which this machine does not "
            "give; choose a smaller one"
        ) from None


def _decoded_ahead(
    clips: ClipDataset, batches: Sequence[Sequence[int]], memory: ClipMemory | None, num_workers: int
) -> Iterator[list[Clip]]:
    dataset: Dataset[Clip | _SharedClip] = clips
    if memory is not None:
        _MEMORIES[id(memory)] = memory
        dataset = _SharingDataset(clips, memory)
    loader = DataLoader(
        dataset,
        batch_sampler=[list(batch) for batch in batches],
        num_workers=num_workers,
        prefetch_factor=PREFETCH_BATCHES,
        pin_memory=torch.cuda.is_available(),
        collate_fn=list,
        multiprocessing_context="fork" if memory is not None else None,
    )
    for batch in loader:
        yield [clip.open() if isinstance(clip, _SharedClip) else clip for clip in batch]


def _with_plain_errors(batches: Iterable[list[Clip]]) -> Iterator[list[Clip]]:
    """Pass batches on; the message of a fault loses the traceback that PyTorch's processes put around it."""
    try:
        yield from batches
    except UserError as error:
        kind, last_line = type(error), str(error).strip().splitlines()[-1]
        raise kind(last_line.removeprefix(f"{kind.__module__}.{kind.__name__}: ")) from None
