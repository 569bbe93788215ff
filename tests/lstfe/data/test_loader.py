from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from lstfe.config import Config, ConfigError, SamplingConfig, TrainConfig
from lstfe.data import loader
from lstfe.data.coco_video import VideoAnnotations, load_annotations, save_annotations
from lstfe.data.frames import FrameError, FrameStore, write_frames
from lstfe.data.loader import make_loader
from lstfe.data.prepared import load_split
from lstfe.data.transforms import collate
from lstfe.types import Clip, ClipLayout

CONFIG = Config(
    sampling=SamplingConfig(short_term_range=4, num_short_term=2, num_candidates=2),
    train=TrainConfig(iterations=6, batch_size=4, num_workers=0, seed=5),
)


def _with(**changes: Any) -> Config:
    return dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, **changes))


def _assert_same(first: list[list[Clip]], second: list[list[Clip]]) -> None:
    assert [len(batch) for batch in first] == [len(batch) for batch in second]
    for a, b in zip(itertools.chain(*first), itertools.chain(*second), strict=True):
        assert (a.video, a.frame_indices, a.layout) == (b.video, b.frame_indices, b.layout)
        assert (a.flip, a.faults) == (b.flip, b.faults)
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.targets.boxes, b.targets.boxes)


def _batches(
    config: Config, prepared: Path, *, start_iteration: int = 0, rank: int = 0, world_size: int = 1
) -> Iterator[list[Clip]]:
    split = load_split(prepared, "train")
    return make_loader(config, *split, start_iteration=start_iteration, rank=rank, world_size=world_size)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_clips_do_not_depend_on_the_number_of_workers(tiny_prepared: Path, num_workers: int) -> None:
    alone = list(_batches(_with(iterations=3), tiny_prepared))
    assert len(alone) == 3
    _assert_same(alone, list(_batches(_with(iterations=3, num_workers=num_workers), tiny_prepared)))


def test_a_resumed_loader_goes_on_where_the_first_would_have(tiny_prepared: Path) -> None:
    whole = list(_batches(CONFIG, tiny_prepared))
    _assert_same(whole[4:], list(_batches(CONFIG, tiny_prepared, start_iteration=4)))
    assert list(_batches(CONFIG, tiny_prepared, start_iteration=6)) == []


@pytest.mark.parametrize("batch_size", [10**9, 10**15])
def test_a_batch_too_large_for_the_memory_is_named(tiny_prepared: Path, batch_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"train\.batch_size {batch_size} needs \d+ GiB for the clips"):
        _batches(_with(iterations=1, batch_size=batch_size, num_workers=1), tiny_prepared)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_each_batch_in_order(tiny_prepared: Path, world_size: int) -> None:
    whole = list(_batches(CONFIG, tiny_prepared))
    shares = [
        list(_batches(CONFIG, tiny_prepared, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    _assert_same(whole, [list(itertools.chain(*parts)) for parts in zip(*shares, strict=True)])


def test_still_iterations_yield_one_frame_a_clip_then_full_clips(tiny_prepared: Path) -> None:
    batches = list(_batches(_with(still_iterations=2), tiny_prepared))
    lengths = [{len(clip.frames) for clip in batch} for batch in batches]
    assert lengths == [{1}, {1}, {5}, {5}, {5}, {5}]
    assert {clip.layout for batch in batches[:2] for clip in batch} == {ClipLayout()}


def test_named_frames_alone_become_current_frames(tiny_prepared: Path) -> None:
    annotations, store = load_split(tiny_prepared, "train")
    first, second = annotations.videos
    videos = [dataclasses.replace(first, vid_train_frames=(3, 9)), second]
    marked = dataclasses.replace(annotations, videos=videos)
    clips = [clip for batch in make_loader(_with(iterations=9), marked, store) for clip in batch]
    shown = {(clip.video, clip.frame_indices[0]) for clip in clips[:18]}
    assert shown == {(first.name, 3), (first.name, 9)} | {(second.name, frame) for frame in range(16)}


def test_a_batch_that_ranks_cannot_share_is_refused(tiny_prepared: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 4 cannot be shared equally by 3 processes"):
        _batches(CONFIG, tiny_prepared, world_size=3)


@pytest.fixture
def mixed(tiny_prepared: Path, tmp_path: Path) -> Path:
    """Video_002 is cut to 48x96 pixels, and frame 3 of Video_001 has a wrong bit."""
    shutil.copytree(tiny_prepared, tmp_path / "mixed")
    frames = tmp_path / "mixed" / "frames"
    store = FrameStore(tiny_prepared / "frames")
    write_frames(frames / "Video_002.zip", ((i, store.read("Video_002", i)[:48]) for i in range(16)), 90)
    content = bytearray((frames / "Video_001.zip").read_bytes())
    content[content.index(store.read_jpegs("Video_001", [3])[0]) + 300] ^= 1
    (frames / "Video_001.zip").write_bytes(content)
    path = tmp_path / "mixed" / "annotations" / "train.json"
    annotations: VideoAnnotations = load_annotations(path)
    videos = [dataclasses.replace(v, height=48) if v.name == "Video_002" else v for v in annotations.videos]
    images = [
        dataclasses.replace(image, height=48) if image.video_id == videos[1].id else image
        for image in annotations.images
    ]
    assert videos[1].name == "Video_002"
    save_annotations(dataclasses.replace(annotations, videos=videos, images=images), path)
    return tmp_path / "mixed"


@pytest.mark.parametrize("num_workers", [1, 2])
def test_clips_of_all_sizes_and_their_replacements_do_not_depend_on_the_number_of_workers(
    mixed: Path, num_workers: int
) -> None:
    alone = list(_batches(CONFIG, mixed))
    clips = list(itertools.chain(*alone))
    assert {tuple(clip.frames.shape[-2:]) for clip in clips} == {(48, 96), (64, 96)}
    assert 0 < sum(bool(clip.faults) for clip in clips) < len(clips)
    _assert_same(alone, list(_batches(_with(num_workers=num_workers), mixed)))


def test_a_batch_of_clips_of_different_size_becomes_one(mixed: Path) -> None:
    batches = list(_batches(CONFIG, mixed))
    batch = next(clips for clips in batches if len({clip.frames.shape for clip in clips}) > 1)
    model = dataclasses.replace(CONFIG.model, image_short_side=48, image_long_side=96)
    assert collate(batch, model).images.shape == (4, 5, 3, 64, 96)


def test_clips_that_are_kept_keep_their_pixels(tiny_prepared: Path) -> None:
    """More clips are alive than there are slots for, and slots that are free again are used again."""
    config = _with(iterations=40, batch_size=2, num_workers=1)
    kept, kept_pixels = [], []
    for number, batch in enumerate(_batches(config, tiny_prepared)):
        if number % 2:
            kept += batch
            kept_pixels += [clip.frames.clone() for clip in batch]
    assert len(kept) == 40
    assert all(torch.equal(clip.frames, pixels) for clip, pixels in zip(kept, kept_pixels, strict=True))


def test_frames_reach_the_training_without_a_copy(tiny_prepared: Path) -> None:
    """Slots are used over and over: as long as no clip is kept, clips come to lie where others lay."""
    config = _with(iterations=40, batch_size=1, num_workers=1)
    addresses = [clip.frames.data_ptr() for (clip,) in _batches(config, tiny_prepared)]
    assert len(set(addresses)) <= 7


class _PinningLoader(DataLoader[Any]):
    """Pins on a machine without a GPU, by the function that PyTorch's own thread calls."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return (pin_memory(batch) for batch in super().__iter__())


def test_frames_and_targets_of_every_clip_are_pinned_where_there_is_a_gpu(
    tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = list(_batches(_with(iterations=3), tiny_prepared))
    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        pinned.append(copy.data_ptr())
        return copy

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(loader, "DataLoader", _PinningLoader)
    batches = list(_batches(_with(iterations=3, num_workers=1), tiny_prepared))
    tensors = [
        tensor
        for batch in batches
        for clip in batch
        for tensor in (clip.targets.boxes, clip.targets.labels, clip.frames)
    ]
    assert [tensor.data_ptr() for tensor in tensors] == pinned
    _assert_same(expected, batches)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_workers", [1, 2])
def test_loader_processes_hand_over_pinned_clips(tiny_prepared: Path, num_workers: int) -> None:
    alone = list(_batches(CONFIG, tiny_prepared))
    batches = list(_batches(_with(num_workers=num_workers), tiny_prepared))
    assert all(clip.frames.is_pinned() for batch in batches for clip in batch)
    assert all(clip.targets.boxes.is_pinned() for batch in batches for clip in batch)
    _assert_same(alone, batches)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_fault_in_any_process_is_one_line(tiny_prepared: Path, tmp_path: Path, num_workers: int) -> None:
    shutil.copytree(tiny_prepared / "annotations", tmp_path / "annotations")
    with pytest.raises(FrameError, match=r"^\S+\.zip: no such file[^\n]*$"):
        next(_batches(_with(num_workers=num_workers), tmp_path))
