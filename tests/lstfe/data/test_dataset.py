from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lstfe.config import Config, ConfigError, SamplingConfig, TrainConfig
from lstfe.data.coco_video import AnnotationError
from lstfe.data.dataset import ClipDataset, flip_clip, load_split, make_loader
from lstfe.data.frames import FrameError, FrameStore, write_frames
from lstfe.data.sampling import ClipSampler
from lstfe.types import Clip, ClipLayout, Targets

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
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.targets.boxes, b.targets.boxes)


def _clip() -> Clip:
    frames = torch.arange(2 * 3 * 4 * 6, dtype=torch.uint8).reshape(2, 3, 4, 6)
    targets = Targets(torch.tensor([[1.0, 0.0, 3.0, 2.0]]), torch.tensor([1]))
    return Clip(frames, ClipLayout((1,), (1,)), targets, "a", (0, 1))


def test_a_clip_without_objects_can_be_flipped() -> None:
    clip = dataclasses.replace(_clip(), targets=Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    assert flip_clip(clip).targets.boxes.shape == (0, 4)


def test_flipping_mirrors_frames_and_boxes_and_twice_is_nothing() -> None:
    clip = _clip()
    flipped = flip_clip(clip)
    assert flipped.targets.boxes.tolist() == [[3.0, 0.0, 5.0, 2.0]]
    assert torch.equal(flipped.frames[..., 3:5], clip.frames[..., 1:3].flip(-1))
    _assert_same([[flip_clip(flipped)]], [[clip]])


def test_clips_hold_the_frames_and_boxes_that_are_stored(tiny_prepared: Path) -> None:
    annotations, store = load_split(tiny_prepared, "train")
    videos = [(name, annotations.frame_ids(name)) for name in annotations.images_by_video]
    dataset = ClipDataset(annotations, store, ClipSampler(videos, CONFIG.sampling, seed=1))
    for number in range(10):
        clip = dataset[number]
        assert clip.frames.shape == (5, 3, 64, 96)
        for frame, index in zip(clip.frames, clip.frame_indices, strict=True):
            stored = torch.from_numpy(store.read(clip.video, index)).permute(2, 0, 1)
            assert torch.equal(frame, stored)
        boxes, labels = annotations.boxes(clip.video, clip.frame_indices[0])
        assert clip.targets.boxes.tolist() == boxes.tolist()
        assert clip.targets.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("num_workers", [1, 2])
def test_clips_do_not_depend_on_the_number_of_workers(tiny_prepared: Path, num_workers: int) -> None:
    alone = list(make_loader(_with(iterations=3), tiny_prepared))
    assert len(alone) == 3
    _assert_same(alone, list(make_loader(_with(iterations=3, num_workers=num_workers), tiny_prepared)))


def test_a_resumed_loader_goes_on_where_the_first_would_have(tiny_prepared: Path) -> None:
    whole = list(make_loader(CONFIG, tiny_prepared))
    _assert_same(whole[4:], list(make_loader(CONFIG, tiny_prepared, start_iteration=4)))
    assert list(make_loader(CONFIG, tiny_prepared, start_iteration=6)) == []


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_each_batch_in_order(tiny_prepared: Path, world_size: int) -> None:
    whole = list(make_loader(CONFIG, tiny_prepared))
    shares = [
        list(make_loader(CONFIG, tiny_prepared, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    _assert_same(whole, [list(itertools.chain(*parts)) for parts in zip(*shares, strict=True)])


def test_still_iterations_yield_one_frame_a_clip_then_full_clips(tiny_prepared: Path) -> None:
    batches = list(make_loader(_with(still_iterations=2), tiny_prepared))
    lengths = [{len(clip.frames) for clip in batch} for batch in batches]
    assert lengths == [{1}, {1}, {5}, {5}, {5}, {5}]
    assert {clip.layout for batch in batches[:2] for clip in batch} == {ClipLayout()}


def test_a_batch_that_ranks_cannot_share_is_refused(tiny_prepared: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 4 cannot be shared equally by 3 processes"):
        make_loader(CONFIG, tiny_prepared, world_size=3)


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"annotations/train\.json: no such split"):
        make_loader(CONFIG, tmp_path)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_fault_in_any_process_is_one_line(tiny_prepared: Path, tmp_path: Path, num_workers: int) -> None:
    shutil.copytree(tiny_prepared / "annotations", tmp_path / "annotations")
    with pytest.raises(FrameError, match=r"^\S+\.zip: no such file[^\n]*$"):
        next(make_loader(_with(num_workers=num_workers), tmp_path))


def test_a_damaged_frame_is_named(tiny_prepared: Path, tmp_path: Path) -> None:
    annotations, store = load_split(tiny_prepared, "val")
    write_frames(tmp_path / "Video_003.zip", ((i, store.read("Video_003", i)) for i in range(16)), 90)
    content = (tmp_path / "Video_003.zip").read_bytes()
    (tmp_path / "Video_003.zip").write_bytes(content.replace(b"\xff\xd8\xff", b"\0\0\0"))
    sampler = ClipSampler([("Video_003", range(16))], CONFIG.sampling, seed=0)
    with pytest.raises(FrameError, match=r"Video_003\.zip: frame \d+ is damaged"):
        ClipDataset(annotations, FrameStore(tmp_path), sampler)[0]
