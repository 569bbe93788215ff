"""The running mean against its formula written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lstfe.training.ema import MeanWeights


def weight_of(model: nn.Module) -> float:
    return next(model.parameters()).item()


def model_with(weight: float) -> nn.Module:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model


def test_a_model_without_parameters_has_no_mean() -> None:
    mean = MeanWeights(nn.ReLU(), 0.9)
    mean.adopt()
    assert mean.state_dict() == {}


def test_the_mean_follows_its_formula_and_leaves_the_weights_alone() -> None:
    model = model_with(0.0)
    mean, expected = MeanWeights(model, 0.5), 0.0
    for num_updates, weight in enumerate((1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0), start=1):
        nn.init.constant_(model.weight, weight)
        mean.update(num_updates)
        decay = min(0.5, (1 + num_updates) / (10 + num_updates))
        expected = decay * expected + (1 - decay) * weight
    assert float(mean.state_dict()["weight"]) == pytest.approx(expected)
    assert weight_of(model) == 8.0


def test_the_model_has_the_mean_within_the_block_and_its_own_weights_after_it_even_after_an_error() -> None:
    model = model_with(1.0)
    mean = MeanWeights(model, 0.9)
    nn.init.constant_(model.weight, 5.0)

    def fail() -> None:
        with mean.adopted():
            assert weight_of(model) == 1.0
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert weight_of(model) == 5.0
    mean.adopt()
    assert weight_of(model) == 1.0


def test_a_saved_mean_goes_on_and_a_restarted_one_begins_with_the_weights() -> None:
    saved = {name: tensor.clone() for name, tensor in MeanWeights(model_with(3.0), 0.9).state_dict().items()}
    model = model_with(7.0)
    mean = MeanWeights(model, 0.9)
    mean.load_state_dict(saved)
    assert torch.equal(mean.state_dict()["weight"], torch.tensor([[3.0]]))
    mean.restart()
    assert torch.equal(mean.state_dict()["weight"], torch.tensor([[7.0]]))
