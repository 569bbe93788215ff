"""Detection and training keep to the device that they are given, with or without a GPU at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lstfe.config import Config, InferenceConfig, ModelConfig, TrainConfig
from lstfe.data.sampling import clip_layout
from lstfe.model.detector import LSTFENet
from lstfe.model.methods import METHODS, resolve_method
from lstfe.stream import FrameDetections, StreamingDetector
from lstfe.training import step
from lstfe.training.distributed import World
from lstfe.types import Clip, Targets

from .pretend_gpu import MixedDevices, blocking_copies, constant_gradients, pretend_gpu

FRAMES = [np.random.default_rng(seed).integers(0, 256, (48, 72, 3), np.uint8) for seed in range(7)]


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    with pretend_gpu() as device:
        yield device


# ------------------------------------------------------------------------------------------- the pretended GPU


def test_tensors_of_two_devices_do_not_meet(gpu: torch.device) -> None:
    there, here = torch.ones(3, device=gpu), torch.ones(3)
    with pytest.raises(RuntimeError) as raised:
        there + here
    assert torch.cuda.is_available() or isinstance(raised.value, MixedDevices)
    with pytest.raises(RuntimeError):
        here[torch.zeros(2, dtype=torch.long, device=gpu)]
    with pytest.raises(TypeError):
        there.numpy()


def test_numbers_indices_and_copies_cross_over(gpu: torch.device) -> None:
    there = torch.arange(4.0, device=gpu)
    assert (there + torch.tensor(1.0)).device == gpu
    assert there[torch.tensor([1, 3])].tolist() == [1.0, 3.0]
    assert there.new_tensor([5.0]).device == gpu
    assert there.to("cpu").numpy().tolist() == [0.0, 1.0, 2.0, 3.0]
    assert (float(there.sum()), bool((there > 2).any())) == (6.0, True)
    there.copy_(torch.zeros(4))
    assert there.tolist() == [0.0] * 4


def test_copies_that_the_host_waits_for_are_seen(gpu: torch.device) -> None:
    if torch.cuda.is_available():
        pytest.skip("a real GPU is not looked into")
    with blocking_copies() as awaited:
        there = torch.zeros(2).to(gpu)
        there.copy_(torch.zeros(3, 2)[0])
        there.new_tensor([1.0])
        torch.zeros(4).pin_memory().to(gpu, non_blocking=True)
        torch.zeros_like(there) + 1.0
    assert awaited == [(2,), (2,), (1,)]


# ----------------------------------------------------------------------------------------------------- the code


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_detects_the_same_on_a_gpu(tiny: Callable[..., ModelConfig], method: str) -> None:
    inference = InferenceConfig(
        lookahead=2, alignment_gap=1, relation_range=2, num_relation=2, num_candidates=2
    )
    config = resolve_method(Config(model=replace(tiny(), method=method), inference=inference))
    expected = detected(config, torch.device("cpu"))
    with pretend_gpu() as device:
        found = detected(config, device)
    assert len(found) == len(expected) == len(FRAMES)
    for one, other in zip(found, expected, strict=True):
        assert one.frame_index == other.frame_index
        for name in ("boxes", "scores", "labels"):
            ours, theirs = getattr(one.detections, name), getattr(other.detections, name)
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-2)


def detected(config: Config, device: torch.device) -> list[FrameDetections]:
    torch.manual_seed(1)
    model = LSTFENet(config.model, num_classes=3, pretrained=False)
    detector = StreamingDetector(model, config, device=device)
    return [found for frame in FRAMES for found in detector.push(frame)] + detector.finish()


@pytest.mark.parametrize(
    ("method", "optimizer"), [("lstfe", "sgd"), ("lstfe", "adamw"), ("faster_rcnn", "sgd")]
)
def test_updates_have_the_same_losses_on_a_gpu(
    tiny: Callable[..., ModelConfig], method: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = TrainConfig(
        optimizer=optimizer,
        batch_size=2,
        lr_batch_size=2,
        amp="off",
        ema_decay=0.9,
        colour_jitter=0.2,
        max_gradient_norm=5.0,
        still_iterations=0,
    )
    config = resolve_method(Config(model=replace(tiny(), method=method), train=train))
    monkeypatch.setattr(step, "peak_flops", lambda device: None)
    expected = losses(config, torch.device("cpu"), monkeypatch)
    with pretend_gpu() as device:
        found = losses(config, device, monkeypatch)
    assert found == pytest.approx(expected, rel=1e-4)


def test_an_update_waits_for_no_copy_to_the_gpu(
    tiny: Callable[..., ModelConfig], gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("a real GPU is not looked into")
    train = TrainConfig(batch_size=2, lr_batch_size=2, amp="off", colour_jitter=0.2, max_gradient_norm=5.0)
    config = resolve_method(Config(model=tiny(), train=train))
    monkeypatch.setattr(step, "peak_flops", lambda device: None)
    monkeypatch.setattr(World, "device", gpu)
    model = LSTFENet(config.model, num_classes=3, pretrained=False).to(gpu)
    stepper = step.Stepper(model, config, World(), micro_batch=None)
    monkeypatch.setattr(Tensor, "backward", constant_gradients(list(model.parameters())))
    clips = [replace(clip(seed), flip=seed == 1) for seed in range(2)]
    clips[1].targets.crowds = torch.tensor([[0.0, 0.0, 60.0, 60.0]])
    with blocking_copies() as awaited:
        stepper.step(clips, range(2), 0)
    assert awaited == []


def losses(config: Config, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Sequence[float]:
    torch.manual_seed(2)
    model = LSTFENet(config.model, num_classes=3, pretrained=False).to(device)
    monkeypatch.setattr(World, "device", device)
    stepper = step.Stepper(model, config, World(), micro_batch=1)
    monkeypatch.setattr(Tensor, "backward", constant_gradients(list(model.parameters())))
    clips = [clip(seed) for seed in range(2)]
    return [float(stepper.step(clips, range(2), iteration).losses["loss"]) for iteration in range(3)]


def clip(seed: int) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    layout = clip_layout(2, 2)
    frames = torch.randint(0, 256, (5, 64, 96, 3), dtype=torch.uint8, generator=generator)
    corners = torch.rand(3, 2, generator=generator) * torch.tensor([70.0, 40.0])
    targets = Targets(torch.cat((corners, corners + 20), dim=1), torch.tensor([1, 2, 1]))
    return Clip(frames.permute(0, 3, 1, 2), layout, targets, "noise", tuple(range(5)))
