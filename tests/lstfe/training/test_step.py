"""One update: parts of a batch add up to the whole, sizes mix, and what is not finite changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lstfe.config import Config, ConfigError
from lstfe.data.sampling import clip_layout
from lstfe.model.detector import LSTFENet
from lstfe.model.methods import METHODS, resolve_method
from lstfe.training.distributed import World
from lstfe.training.step import Stepper, scaled_models, step_if
from lstfe.types import Clip, ClipLayout, Targets

NUMBERS = range(40, 44)
WHOLE = clip_layout(2, 2)


def with_train(config: Config, **changes: object) -> Config:
    return replace(config, train=replace(config.train, still_iterations=0, amp="off", **changes))


def clip(size: tuple[int, int], seed: int, layout: ClipLayout = WHOLE) -> Clip:
    generator = torch.Generator().manual_seed(seed)
    num_frames = 1 + len(layout.relation) + len(layout.candidates)
    frames = torch.randint(0, 256, (num_frames, *size, 3), dtype=torch.uint8, generator=generator).permute(
        0, 3, 1, 2
    )
    height, width = size
    boxes = torch.tensor([[0.2 * width, 0.3 * height, 0.2 * width + 16, 0.3 * height + 12]])
    return Clip(frames, layout, Targets(boxes, torch.tensor([1])), "video", tuple(range(num_frames)))


def clips(*sizes: tuple[int, int]) -> list[Clip]:
    return [clip(size, seed) for seed, size in enumerate(sizes)]


def stepper(config: Config, micro_batch: int | None = None) -> Stepper:
    torch.manual_seed(3)
    model = LSTFENet(config.model, num_classes=2).to(memory_format=torch.channels_last)
    return Stepper(model, config, World(), micro_batch=micro_batch)


def gradients(found: Stepper) -> dict[str, Tensor]:
    return {name: tensor.grad for name, tensor in found.model.named_parameters() if tensor.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 8])
def test_a_batch_in_parts_gives_the_losses_and_gradients_of_the_whole(
    tiny_config: Config, micro_batch: int
) -> None:
    config, batch = with_train(tiny_config, optimizer="sgd", max_gradient_norm=None), clips(*[(64, 96)] * 4)
    whole, parts = stepper(config), stepper(config, micro_batch)
    expected, found = whole.step(batch, NUMBERS, 0), parts.step(batch, NUMBERS, 0)
    assert_close(found.losses, expected.losses)
    assert_close(gradients(parts), gradients(whole))
    torch.testing.assert_close(found.gradient_norm, expected.gradient_norm, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("is_still", [True, False], ids=["still clips", "whole clips"])
@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_that_trains_gets_a_gradient_by_every_method(
    tiny_config: Config, method: str, is_still: bool
) -> None:
    """Without that, processes would wait for each other's gradients for ever."""
    config = resolve_method(replace(tiny_config, model=replace(tiny_config.model, method=method)))
    sampling = config.sampling
    layout = ClipLayout() if is_still else clip_layout(sampling.num_short_term, sampling.num_candidates)
    config = replace(config, train=replace(config.train, still_iterations=2 if is_still else 0))
    training = stepper(config)
    training.step([clip((64, 96), seed, layout) for seed in range(2)], range(2), 0)
    trainable = {name for name, parameter in training.model.named_parameters() if parameter.requires_grad}
    temporal = {id(parameter) for parameter in training.model.temporal_parameters()}
    assert gradients(training).keys() == trainable
    assert len(trainable) == len(list(training.model.parameters())) - (len(temporal) if is_still else 0)


@pytest.mark.parametrize(
    ("num_short_term", "num_candidates", "num_frames"),
    [(0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 2), (0, 0, 0)],
)
def test_every_parameter_that_trains_gets_a_gradient_whatever_frames_a_clip_has(
    tiny_config: Config, num_short_term: int, num_candidates: int, num_frames: int
) -> None:
    selection = replace(tiny_config.model.selection, num_frames=num_frames)
    sampling = replace(tiny_config.sampling, num_short_term=num_short_term, num_candidates=num_candidates)
    model = replace(tiny_config.model, selection=selection)
    config = resolve_method(replace(with_train(tiny_config), model=model, sampling=sampling))
    training = stepper(config)
    layout = clip_layout(config.sampling.num_short_term, config.sampling.num_candidates)
    training.step([clip((64, 96), 0, layout)], range(1), 0)
    assert gradients(training).keys() == dict(training.model.named_parameters()).keys()


def test_clips_with_frames_of_different_sizes_train_together_and_every_parameter_gets_a_gradient(
    tiny_config: Config,
) -> None:
    config = with_train(tiny_config)
    training = stepper(config)
    result = training.step(clips((64, 96), (48, 96), (96, 64), (130, 70)), NUMBERS, 0)
    assert bool(result.is_finite)
    trainable = {name for name, parameter in training.model.named_parameters() if parameter.requires_grad}
    assert gradients(training).keys() == trainable


def test_padding_for_a_larger_neighbour_changes_no_target(tiny_config: Config) -> None:
    """Anchors in the padding are ignored and boxes stay where they are: the losses differ by its border alone."""
    config = with_train(tiny_config, lr=1e-9)
    small, large = clips((48, 96), (64, 96))
    alone = [
        float(stepper(config).step([one], range(number, number + 1), 0).losses["loss"])
        for number, one in ((40, small), (41, large))
    ]
    together = float(stepper(config).step([small, large], range(40, 42), 0).losses["loss"])
    assert together == pytest.approx(sum(alone) / 2, rel=0.05)


def test_a_loss_of_infinity_with_finite_gradients_is_no_update_either(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = LSTFENet.forward
    monkeypatch.setattr(
        LSTFENet,
        "forward",
        lambda model, batch: {name: loss + torch.inf for name, loss in forward(model, batch).items()},
    )
    training = stepper(with_train(tiny_config))
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    result = training.step(clips((64, 96)), range(1), 0)
    assert not result.is_finite
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.state_dict().items())
    assert not training.optimizer.state


@pytest.mark.parametrize("fused", [False, True], ids=["decided here", "decided by the device"])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimiser_steps_only_if_the_gradient_is_finite(
    kind: type[torch.optim.Optimizer], fused: bool
) -> None:
    def trained(updates: Sequence[float]) -> Tensor:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer = kind(layer.parameters(), lr=0.1, fused=fused)
        for factor in updates:
            optimizer.zero_grad()
            loss = (layer(torch.ones(1, 3)) * factor).sum()
            loss.backward()
            step_if(optimizer, loss.isfinite())
        return layer.weight.detach()

    assert torch.equal(trained([1.0, float("nan"), 2.0]), trained([1.0, 2.0]))
    assert not torch.equal(trained([1.0, 2.0]), trained([1.0]))


def test_each_update_draws_one_of_the_scales_whoever_draws_it(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_train(tiny_config, image_scales=(1.0, 2.0), lr=1e-9)
    seen: list[tuple[int, int]] = []
    forward = LSTFENet.forward

    def watched(model: LSTFENet, batch: object) -> object:
        seen.append(batch.images.shape[-2:])
        return forward(model, batch)

    monkeypatch.setattr(LSTFENet, "forward", watched)
    for _ in range(2):
        training = stepper(config, micro_batch=1)
        for iteration in range(5):
            training.step(clips((64, 96), (64, 96)), range(2), iteration)
    assert set(seen) == {(64, 96), (128, 192)}
    assert seen[0::2] == seen[1::2], "one scale an update"
    assert seen[:10] == seen[10:], "the same scales again"


def test_one_scale_leaves_the_model_as_it_is_and_a_scale_too_small_is_refused(tiny_config: Config) -> None:
    assert scaled_models(tiny_config) == [tiny_config.model]
    with pytest.raises(ConfigError, match=r"train\.image_scales \(1\.0, 0\.1\): model needs 32 <= "):
        scaled_models(with_train(tiny_config, image_scales=(1.0, 0.1)))
