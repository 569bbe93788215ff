"""Clips -> network input: mirror, resize, normalise, pad, on whichever device the frames are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from lstfe.config import ModelConfig
from lstfe.image_size import PAD_MULTIPLE, model_input_size
from lstfe.transfer import constant, to_device
from lstfe.types import Clip, ClipBatch, Targets

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in 0..1: what torchvision's weights expect."""


def to_model_input(frames: Tensor, config: ModelConfig) -> Tensor:
    """Resize and normalise: (T, 3, H, W) uint8 RGB -> (T, 3, h, w) float32, channels last in memory."""
    images = _resized(frames, model_input_size((frames.shape[-2], frames.shape[-1]), config))
    pixels, mean, std = _by_channel(images, *_pixel_statistics(images.device))
    pixels.sub_(mean).div_(std)
    return images


@cache
def _pixel_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of pixels in 0..255, (3,) each, which stay on the device."""
    with torch.inference_mode(mode=False):  # they outlive the caller's mode
        mean, std = (to_device(torch.tensor(numbers), device) for numbers in (IMAGE_MEAN, IMAGE_STD))
        return mean * 255, std * 255


def _resized(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Return frames of that (height, width) as float32 in memory of their own, channels last."""
    old_size = (frames.shape[-2], frames.shape[-1])
    if size == old_size:
        return frames.to(torch.float32, memory_format=torch.channels_last, copy=True)
    if size[0] < old_size[0] or size[1] < old_size[1]:
        images = frames.to(torch.float32, memory_format=torch.contiguous_format)
        images = functional.interpolate(images, size=size, mode="bilinear", antialias=True)
        return images.contiguous(memory_format=torch.channels_last)
    # Where nothing shrinks, antialiasing changes nothing; without it, and channels last, it is several times faster.
    images = frames.to(torch.float32, memory_format=torch.channels_last)
    return functional.interpolate(images, size=size, mode="bilinear")


def _by_channel(images: Tensor, *numbers: Tensor) -> tuple[Tensor, ...]:
    """Return a view of (T, 3, h, w) and what broadcasts over it of each `numbers`, (3,) on the same device."""
    if not images.is_contiguous(memory_format=torch.channels_last):
        return images, *(number.view(3, 1, 1) for number in numbers)
    # On the CPU, elementwise work is ten times faster along rows of all channels than over a last axis of three.
    rows = images.permute(0, 2, 3, 1).flatten(2)  # (T, h, w * 3)
    return rows, *(number.repeat(images.shape[-1]) for number in numbers)


def collate(clips: Sequence[Clip], config: ModelConfig, device: torch.device | str = "cpu") -> ClipBatch:
    """Bring clips of one layout onto a device as one batch, padded with zeros at the right and bottom."""
    layout = clips[0].layout
    if any(clip.layout != layout for clip in clips):
        raise ValueError(
            f"a batch needs clips of one layout, got {sorted({str(clip.layout) for clip in clips})}"
        )
    clips = [_on_device(clip, device) for clip in clips]
    images = [to_model_input(clip.frames, config) for clip in clips]
    image_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    original_sizes = [(clip.frames.shape[-2], clip.frames.shape[-1]) for clip in clips]
    targets = [
        _resize_targets(clip.targets, original, size)
        for clip, original, size in zip(clips, original_sizes, image_sizes, strict=True)
    ]
    return ClipBatch(pad_to_one_size(images), layout, image_sizes, original_sizes, targets)


def jitter_colours(batch: ClipBatch, strength: float) -> None:
    """Change contrast and colour of each clip at random, in place; all frames of a clip change alike.

    Contrast is scaled by up to 1 +- `strength`, each channel by as much again and shifted by `strength` deviations.
    The draw depends on `batch.seeds` alone, so that it is the same for any number of processes.
    """
    for images, seed in zip(batch.images, batch.seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        draws = (2 * torch.rand(7, generator=generator) - 1) * strength
        # Padding takes part, which is as good as any other constant border.
        changes = torch.stack(((1 + draws[0]) * (1 + draws[1:4]), draws[4:]))
        pixels, scale, shift = _by_channel(images, *to_device(changes, images.device))
        pixels.mul_(scale).add_(shift)


def pad_to_one_size(images: Sequence[Tensor]) -> Tensor:
    """Stack (T, 3, h, w) images of any sizes: -> (B, T, 3, H, W), H and W multiples of PAD_MULTIPLE."""
    height, width = (
        -(-max(image.shape[axis] for image in images) // PAD_MULTIPLE) * PAD_MULTIPLE for axis in (-2, -1)
    )
    num_frames, channels = images[0].shape[:2]
    padded = images[0].new_zeros(len(images), num_frames, height, width, channels)
    padded = padded.permute(0, 1, 4, 2, 3)  # (B, T, 3, H, W), channels last in memory
    for place, image in enumerate(images):
        padded[place, ..., : image.shape[-2], : image.shape[-1]] = image
    return padded


def flip_clip(clip: Clip) -> Clip:
    """Mirror all frames and the targets of a clip left to right."""
    width = clip.frames.shape[-1]

    def mirrored(boxes: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(1)
        return torch.stack((width - x2, y1, width - x1, y2), dim=1)

    targets = _with_boxes(clip.targets, mirrored)
    return replace(clip, frames=clip.frames.flip(-1), targets=targets, flip=not clip.flip)


def _on_device(clip: Clip, device: torch.device | str) -> Clip:
    frames = clip.frames.to(device, non_blocking=True)
    targets = _with_boxes(clip.targets, lambda boxes: to_device(boxes, device))
    targets.labels = to_device(targets.labels, device)
    clip = replace(clip, frames=frames, targets=targets)
    return flip_clip(clip) if clip.flip else clip


def _resize_targets(targets: Targets, original: tuple[int, int], size: tuple[int, int]) -> Targets:
    scale = constant((size[1] / original[1], size[0] / original[0]) * 2, targets.boxes)
    return _with_boxes(targets, lambda boxes: boxes * scale)


def _with_boxes(targets: Targets, change: Callable[[Tensor], Tensor]) -> Targets:
    """Return the targets with their boxes and crowds changed alike."""
    crowds = None if targets.crowds is None else change(targets.crowds)
    return Targets(change(targets.boxes), targets.labels, crowds)
