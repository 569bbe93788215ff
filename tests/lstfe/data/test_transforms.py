from __future__ import annotations

import dataclasses

import pytest
import torch

from lstfe.config import ModelConfig
from lstfe.data.transforms import (
    IMAGE_MEAN,
    IMAGE_STD,
    collate,
    flip_clip,
    jitter_colours,
    pad_to_one_size,
    to_model_input,
)
from lstfe.types import Clip, ClipBatch, ClipLayout, Targets

CONFIG = ModelConfig(image_short_side=64, image_long_side=96)


def _clip(height: int, width: int, boxes: list[list[float]], num_frames: int = 2) -> Clip:
    frames = torch.randint(0, 256, (num_frames, 3, height, width), dtype=torch.uint8)
    targets = Targets(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.ones(len(boxes), dtype=torch.int64)
    )
    layout = ClipLayout(tuple(range(1, num_frames)), tuple(range(1, num_frames)))
    return Clip(frames, layout, targets, "a", tuple(range(num_frames)))


def test_clips_without_objects_give_empty_targets() -> None:
    batch = collate([_clip(64, 96, []), _clip(64, 96, [])], CONFIG)
    assert [target.boxes.shape for target in batch.targets] == [(0, 4), (0, 4)]


def test_a_clip_without_objects_can_be_flipped() -> None:
    assert flip_clip(_clip(4, 6, [])).targets.boxes.shape == (0, 4)


def test_flipping_mirrors_frames_and_boxes_and_twice_is_nothing() -> None:
    clip = _clip(4, 6, [[1, 0, 3, 2]])
    flipped = flip_clip(clip)
    assert flipped.targets.boxes.tolist() == [[3.0, 0.0, 5.0, 2.0]]
    assert torch.equal(flipped.frames[..., 3:5], clip.frames[..., 1:3].flip(-1))
    twice = flip_clip(flipped)
    assert torch.equal(twice.frames, clip.frames)
    assert torch.equal(twice.targets.boxes, clip.targets.boxes)


def test_a_clip_that_is_to_be_mirrored_comes_out_as_a_mirrored_clip_does() -> None:
    clip = _clip(32, 48, [[1, 2, 3, 4]])
    found = collate([dataclasses.replace(clip, flip=True)], CONFIG)
    expected = collate([dataclasses.replace(flip_clip(clip), flip=False)], CONFIG)
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.targets[0].boxes, expected.targets[0].boxes)
    assert not torch.equal(found.images, collate([clip], CONFIG).images)


def test_crowds_are_mirrored_and_resized_like_boxes() -> None:
    clip = _clip(32, 48, [[1, 2, 3, 4]])
    clip.targets.crowds = torch.tensor([[0.0, 4.0, 10.0, 8.0], [40.0, 0.0, 48.0, 32.0]])
    batch = collate([clip, dataclasses.replace(clip, flip=True), _clip(64, 96, [])], CONFIG)
    regions = [target.crowds for target in batch.targets]
    assert regions[2] is None
    assert [crowds.tolist() for crowds in regions if crowds is not None] == [
        [[0, 8, 20, 16], [80, 0, 96, 64]],
        [[76, 8, 96, 16], [0, 0, 16, 64]],
    ]
    assert [target.boxes.tolist() for target in batch.targets[:2]] == [[[2, 4, 6, 8]], [[90, 4, 94, 8]]]


def test_a_pinned_clip_keeps_its_crowds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
    clip = _clip(32, 48, [[1, 2, 3, 4]])
    assert clip.pin_memory().targets.crowds is None
    clip.targets.crowds = torch.tensor([[0.0, 4.0, 10.0, 8.0]])
    pinned = clip.pin_memory().targets.crowds
    assert pinned is not None
    assert pinned is not clip.targets.crowds
    assert torch.equal(pinned, clip.targets.crowds)


def test_frames_of_the_right_size_are_only_normalised() -> None:
    frames = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    images = to_model_input(frames, CONFIG)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    assert images.dtype == torch.float32
    assert torch.allclose(images, (frames / 255 - mean) / std, atol=1e-5)


def test_a_smaller_picture_is_the_mean_of_what_it_covers() -> None:
    stripes = torch.zeros(1, 3, 128, 192, dtype=torch.uint8)
    stripes[..., ::2] = 200
    small = to_model_input(stripes, CONFIG) * torch.tensor(IMAGE_STD).view(3, 1, 1)
    small = (small + torch.tensor(IMAGE_MEAN).view(3, 1, 1)) * 255
    assert small.shape == (1, 3, 64, 96)
    # Without antialiasing the stripes would come out as 0 or 200, whichever the samples hit.
    assert (small[..., 2:-2] - 100).abs().max() < 1


def test_boxes_follow_the_resize_of_their_clip() -> None:
    batch = collate([_clip(32, 48, [[1, 2, 3, 4]]), _clip(128, 192, [[10, 20, 30, 40]])], CONFIG)
    assert batch.targets[0].boxes.tolist() == [[2, 4, 6, 8]]
    assert batch.targets[1].boxes.tolist() == [[5, 10, 15, 20]]
    assert batch.image_sizes == [(64, 96), (64, 96)]
    assert batch.original_sizes == [(32, 48), (128, 192)]


def test_images_of_different_shapes_are_padded_with_zeros_to_multiples_of_32() -> None:
    batch = collate([_clip(64, 80, []), _clip(80, 64, [])], CONFIG)
    assert batch.images.shape == (2, 2, 3, 96, 96)
    assert batch.image_sizes == [(64, 80), (80, 64)]
    for images, (height, width) in zip(batch.images, batch.image_sizes, strict=True):
        assert images[..., height:, :].abs().sum() == 0
        assert images[..., :, width:].abs().sum() == 0
        assert images[..., :height, :width].abs().min() > 0


def test_padding_leaves_a_fitting_image_alone() -> None:
    image = torch.rand(2, 3, 32, 64)
    assert torch.equal(pad_to_one_size([image])[0], image)


def test_clips_of_different_layouts_are_refused() -> None:
    with pytest.raises(ValueError, match="a batch needs clips of one layout"):
        collate([_clip(64, 96, [], 2), _clip(64, 96, [], 3)], CONFIG)


def test_colours_change_alike_in_all_frames_of_a_clip_and_differ_between_clips() -> None:
    images = torch.ones(2, 3, 3, 4, 4)
    images[:, 1] = 2.0
    batch = ClipBatch(images.clone(), ClipLayout(), [(4, 4)] * 2, [(4, 4)] * 2, seeds=[5, 6])
    jitter_colours(batch, 0.3)
    slope = batch.images[:, 1] - batch.images[:, 0]  # (B, 3, 4, 4): the scale of each channel
    torch.testing.assert_close(batch.images[:, 2], batch.images[:, 0])
    assert ((slope > 0.7**2) & (slope < 1.3**2)).all()
    assert ((batch.images[:, 0] - slope).abs() <= 0.3 + 1e-6).all()
    assert not torch.equal(batch.images[0], batch.images[1])


def test_the_same_seeds_change_colours_alike() -> None:
    first, second = (
        ClipBatch(torch.rand(1, 1, 3, 2, 2).fill_(0.5), ClipLayout(), [(2, 2)], [(2, 2)], seeds=[9])
        for _ in range(2)
    )
    jitter_colours(first, 0.2)
    jitter_colours(second, 0.2)
    assert torch.equal(first.images, second.images)
