from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from lstfe.config import SamplingConfig
from lstfe.data import frames
from lstfe.data.coco_video import save_annotations
from lstfe.data.dataset import MAX_FAULTS, ClipDataset
from lstfe.data.frames import FrameError, FrameStore, write_frames
from lstfe.data.prepared import load_split
from lstfe.data.sampling import ClipSampler
from lstfe.types import Clip

SAMPLING = SamplingConfig(short_term_range=4, num_short_term=2, num_candidates=2)


def _dataset(
    prepared_dir: Path, sampling: SamplingConfig = SAMPLING, *, num_still_clips: int = 0
) -> ClipDataset:
    annotations, store = load_split(prepared_dir, "train")
    videos = [(name, annotations.frame_ids(name)) for name in annotations.images_by_video]
    sampler = ClipSampler(videos, sampling, seed=1, flip_probability=0.5, num_still_clips=num_still_clips)
    return ClipDataset(annotations, store, sampler)


@pytest.fixture
def damaged(tiny_prepared: Path, tmp_path: Path) -> Path:
    """Frame 3 of Video_001 has a wrong bit."""
    shutil.copytree(tiny_prepared, tmp_path / "damaged")
    path = tmp_path / "damaged" / "frames" / "Video_001.zip"
    content = bytearray(path.read_bytes())
    content[content.index(FrameStore(path.parent).read_jpegs("Video_001", [3])[0]) + 300] ^= 1
    path.write_bytes(content)
    return tmp_path / "damaged"


def _shows_the_damage(clip: Clip) -> bool:
    return clip.video == "Video_001" and 3 in clip.frame_indices


def test_clips_hold_the_frames_and_boxes_that_are_stored(tiny_prepared: Path) -> None:
    annotations, store = load_split(tiny_prepared, "train")
    dataset = _dataset(tiny_prepared)
    for number in range(10):
        clip = dataset[number]
        assert clip.frames.shape == (5, 3, 64, 96)
        for frame, index in zip(clip.frames, clip.frame_indices, strict=True):
            stored = torch.from_numpy(store.read(clip.video, index)).permute(2, 0, 1)
            assert torch.equal(frame, stored)
        boxes, labels = annotations.boxes(clip.video, clip.frame_indices[0])
        assert clip.targets.boxes.tolist() == boxes.tolist()
        assert clip.targets.labels.tolist() == labels.tolist()
        assert clip.targets.crowds is None


def test_crowds_are_no_objects_but_regions_of_their_own(tiny_prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_prepared, tmp_path / "crowded")
    annotations, _ = load_split(tiny_prepared, "train")
    marked = [
        dataclasses.replace(entry, iscrowd=entry.id % 2, bbox=(0.0, 0.0, 5.0 + entry.id % 2, 4.0))
        for entry in annotations.annotations
    ]
    num_crowds = sum(entry.iscrowd for entry in marked)
    path = tmp_path / "crowded" / "annotations" / "train.json"
    save_annotations(dataclasses.replace(annotations, annotations=marked), path)
    dataset = _dataset(tmp_path / "crowded")
    every = [dataset[number] for number in range(sum(len(f) for f in annotations.images_by_video.values()))]
    shown = [box for clip in every for box in clip.targets.boxes.tolist()]
    assert shown == [[0, 0, 5, 4]] * (len(marked) - num_crowds)
    crowds = [clip.targets.crowds for clip in every if clip.targets.crowds is not None]
    assert [box for regions in crowds for box in regions.tolist()] == [[0, 0, 6, 4]] * num_crowds
    assert 0 < len(crowds) < len(every)  # none, rather than empty ones, where a frame has none
    assert all(len(clip.targets.boxes) == len(clip.targets.labels) for clip in every)


def test_a_frame_that_a_clip_shows_twice_is_decoded_once(
    tiny_prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    decode = frames.decode_jpeg
    monkeypatch.setattr(
        frames, "decode_jpeg", lambda content, out: decoded.append(content) or decode(content, out)
    )
    dataset = _dataset(tiny_prepared, SamplingConfig(short_term_range=4, num_short_term=20, num_candidates=0))
    clip = dataset[0]
    assert len(clip.frames) == 21
    assert len(decoded) == len(set(decoded)) == len(set(clip.frame_indices))
    again = clip.frame_indices.index(clip.frame_indices[-1])
    assert again < 20
    assert torch.equal(clip.frames[again], clip.frames[-1])


def test_a_clip_that_cannot_be_read_is_replaced_by_one_that_depends_on_its_number_alone(
    tiny_prepared: Path, damaged: Path
) -> None:
    sound, dataset = _dataset(tiny_prepared), _dataset(damaged)
    replaced = [number for number in range(32) if _shows_the_damage(sound[number])]
    assert 0 < len(replaced) < 32
    for number in range(32):
        clip = dataset[number]
        assert bool(clip.faults) == (number in replaced)
        assert not _shows_the_damage(clip)
        if clip.faults:
            assert all("Video_001.zip: frame 3 is damaged" in fault for fault in clip.faults)
            assert len(clip.frames) == 5
            assert torch.equal(_dataset(damaged)[number].frames, clip.frames)
        else:
            assert torch.equal(sound[number].frames, clip.frames)
    assert len({(dataset[number].video, dataset[number].frame_indices) for number in replaced}) > 1


def test_a_still_clip_is_replaced_by_a_still_clip(damaged: Path) -> None:
    clips = [_dataset(damaged, num_still_clips=32)[number] for number in range(32)]
    assert [len(clip.frames) for clip in clips] == [1] * 32
    assert sum(len(clip.faults) for clip in clips) >= 1


def test_a_video_of_another_size_than_annotated_is_skipped(tiny_prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_prepared, tmp_path / "prepared")
    store = FrameStore(tiny_prepared / "frames")
    smaller = ((index, store.read("Video_001", index)[:32]) for index in range(16))
    write_frames(tmp_path / "prepared" / "frames" / "Video_001.zip", smaller, 90)
    clips = [_dataset(tmp_path / "prepared")[number] for number in range(8)]
    assert {clip.video for clip in clips} == {"Video_002"}
    faults = [fault for clip in clips for fault in clip.faults]
    assert faults
    assert all("is 96x32 pixels, expected 96x64 as annotated" in fault for fault in faults)


def test_when_nothing_can_be_read_it_gives_up_and_names_the_last_fault(
    tiny_prepared: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_prepared / "annotations", tmp_path / "annotations")
    with pytest.raises(FrameError, match=rf"\.zip: no such file.*Neither can {MAX_FAULTS - 1} other clips"):
        _dataset(tmp_path)[0]
