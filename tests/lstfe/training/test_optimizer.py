"""Schedules against closed forms and torch's own; optimiser groups against the recipe."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lstfe.config import TrainConfig
from lstfe.training.optimizer import (
    build_optimizer,
    learning_rate,
    one_cycle,
    set_learning_rate,
    warmup_multistep,
)
from lstfe.training.step import step_if

PAPER = TrainConfig(
    iterations=900,
    batch_size=4,
    lr=0.001,
    lr_batch_size=4,
    schedule="warmup_multistep",
    warmup_iterations=300,
    milestones=(0.6667,),
    gamma=0.1,
)


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [(0, 1 / 3), (150, 2 / 3), (300, 1.0), (599, 1.0), (600, 0.1), (899, 0.1)],
)
def test_the_paper_schedule_warms_up_from_a_third_and_drops_at_two_thirds(
    iteration: int, expected: float
) -> None:
    assert warmup_multistep(PAPER, iteration) == pytest.approx(expected)


def test_a_training_without_warmup_starts_at_the_full_learning_rate() -> None:
    config = TrainConfig(iterations=10, warmup_iterations=0, lr=0.5, lr_batch_size=4, batch_size=4)
    assert learning_rate(config, 0) == pytest.approx(0.5)


def test_two_milestones_drop_twice() -> None:
    config = TrainConfig(iterations=100, warmup_iterations=0, milestones=(0.5, 0.75), gamma=0.1)
    assert [warmup_multistep(config, i) for i in (49, 50, 75)] == pytest.approx([1.0, 0.1, 0.01])


def test_one_cycle_equals_torchs_scheduler_at_every_update() -> None:
    config = TrainConfig(iterations=100, warmup_iterations=20, schedule="one_cycle", lr=0.02)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.02, total_steps=100, pct_start=21 / 100, cycle_momentum=False
    )
    expected = []
    for _ in range(100):
        expected.append(reference.get_last_lr()[0])
        optimizer.step()
        if len(expected) < 100:
            reference.step()
    assert [learning_rate(config, i) for i in range(100)] == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("iterations", [1, 2, 5, 40])
def test_one_cycle_comes_down_again_even_in_a_training_shorter_than_the_warmup(iterations: int) -> None:
    config = TrainConfig(iterations=iterations, warmup_iterations=500, schedule="one_cycle")
    factors = [one_cycle(config, i) for i in range(iterations)]
    assert max(factors) == pytest.approx(1.0)
    if iterations > 1:
        assert factors[-1] == pytest.approx(1 / 25e4)


def test_the_learning_rate_grows_linearly_with_the_global_batch() -> None:
    config = TrainConfig(batch_size=16, lr=0.001, lr_batch_size=4, warmup_iterations=0)
    assert learning_rate(config, 0) == pytest.approx(0.004)


@pytest.fixture
def model() -> nn.Module:
    """Build a convolution, a norm and a frozen layer."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.Conv2d(8, 2, 1))
    model[2].requires_grad_(False)
    return model


def test_sgd_trains_biases_twice_as_fast_and_without_decay(model: nn.Module) -> None:
    optimizer = build_optimizer(model, TrainConfig(optimizer="sgd", weight_decay=0.01))
    set_learning_rate(optimizer, 0.5)
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {name: found.get(id(p)) for name, p in model.named_parameters()} == {
        "0.weight": (0.5, 0.01),
        "0.bias": (1.0, 0.0),
        "1.weight": (0.5, 0.01),
        "1.bias": (1.0, 0.0),
        "2.weight": None,
        "2.bias": None,
    }


def test_adamw_decays_matrices_and_kernels_only(model: nn.Module) -> None:
    optimizer = build_optimizer(model, TrainConfig(optimizer="adamw", weight_decay=0.01))
    set_learning_rate(optimizer, 0.5)
    decayed, others = optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert (decayed["lr"], others["lr"]) == (0.5, 0.5)
    assert [id(parameter) for parameter in decayed["params"]] == [id(model[0].weight)]
    assert len(others["params"]) == 3  # the frozen layer is in neither


def test_one_sgd_update_equals_the_formula_written_out() -> None:
    model = nn.Linear(1, 1)
    weight, bias = model.weight.item(), model.bias.item()
    optimizer = build_optimizer(model, TrainConfig(optimizer="sgd", weight_decay=0.1, momentum=0.9))
    set_learning_rate(optimizer, 0.01)
    model(torch.tensor([[3.0]])).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(weight - 0.01 * (3.0 + 0.1 * weight))
    assert model.bias.item() == pytest.approx(bias - 0.02 * 1.0)


def test_the_one_cycle_runs_once_for_still_clips_and_once_for_whole_ones() -> None:
    config = TrainConfig(iterations=100, still_iterations=60, warmup_iterations=10, schedule="one_cycle")
    factors = [one_cycle(config, iteration) for iteration in range(100)]
    alone = [
        TrainConfig(iterations=length, warmup_iterations=10, schedule="one_cycle") for length in (60, 40)
    ]
    assert factors[:60] == [one_cycle(alone[0], iteration) for iteration in range(60)]
    assert factors[60:] == [one_cycle(alone[1], iteration) for iteration in range(40)]


def test_the_feature_alignment_learns_at_its_own_share_of_the_rate() -> None:
    model = nn.ModuleDict({"alignment": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    for optimizer in ("sgd", "adamw"):
        built = build_optimizer(model, TrainConfig(optimizer=optimizer, alignment_lr_factor=0.25))
        factors = {
            name: group["lr_factor"]
            for group in built.param_groups
            for name, parameter in model.named_parameters()
            if any(parameter is other for other in group["params"])
        }
        for kind in ("weight", "bias"):
            assert factors[f"alignment.{kind}"] == pytest.approx(0.25 * factors[f"head.{kind}"])


@pytest.mark.parametrize("is_finite", [True, False], ids=["of a part", "skipped"])
@pytest.mark.parametrize("is_resumed", [False, True])
def test_fused_sgd_equals_plain_sgd_after_a_first_update(
    is_finite: bool, is_resumed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs take the fused kernels; still clips train a part of the model, and a first update may not be finite."""
    plain = torch.optim.SGD

    def trained(fused: bool) -> Tensor:
        monkeypatch.setattr(torch.optim, "SGD", lambda groups, **own: plain(groups, **own | {"fused": fused}))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
        optimizer = build_optimizer(model, TrainConfig(optimizer="sgd"))
        if is_resumed:  # from a checkpoint of before, which holds no momentum yet
            optimizer.load_state_dict(optimizer.state_dict() | {"state": {}})
        junk = [torch.full((64, 64), torch.nan) for _ in range(20)]
        del junk  # memory that is not written to holds it
        for parameter in (model[0] if is_finite else model).parameters():
            parameter.grad = torch.full_like(parameter, 1.0 if is_finite else torch.nan)
        step_if(optimizer, torch.tensor(is_finite))
        for _ in range(2):
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            step_if(optimizer, torch.tensor(True))
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    torch.testing.assert_close(trained(fused=True), trained(fused=False), rtol=0, atol=1e-7)


def test_sgd_without_momentum_keeps_none() -> None:
    assert not build_optimizer(nn.Linear(2, 2), TrainConfig(optimizer="sgd", momentum=0.0)).state
