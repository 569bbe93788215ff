"""Optimisers and learning-rate schedules (paper 4.1: SGD with warm-up and a drop at two thirds).

A schedule is a pure function of the iteration: resuming needs no scheduler state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lstfe.config import TrainConfig

WARMUP_FACTOR = 1 / 3
"""Where the linear warm-up starts, as a fraction of the learning rate."""
BIAS_LR_FACTOR = 2.0
"""SGD trains biases at twice the learning rate and without decay."""
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1 / 25e4
"""Ends of the one-cycle schedule, as fractions of its peak (torch's OneCycleLR defaults)."""
ONE_CYCLE_LONGEST_RISE = 0.3
"""The rise takes at most this share of the training, so that a short one still comes down."""


def peak_learning_rate(config: TrainConfig) -> float:
    """Return the learning rate scaled linearly with the global batch."""
    return config.lr * config.batch_size / config.lr_batch_size


def describe_learning_rate(config: TrainConfig) -> str:
    """Say how the peak learning rate comes from the batch."""
    return (
        f"learning rate {peak_learning_rate(config):.3g} at its peak: train.lr {config.lr:.3g} "
        f"x train.batch_size {config.batch_size} / train.lr_batch_size {config.lr_batch_size}"
    )


def learning_rate(config: TrainConfig, iteration: int) -> float:
    """Return the learning rate of update `iteration`, 0-based."""
    schedule = warmup_multistep if config.schedule == "warmup_multistep" else one_cycle
    return peak_learning_rate(config) * schedule(config, iteration)


def warmup_multistep(config: TrainConfig, iteration: int) -> float:
    """Return the factor: linear from 1/3 to 1 over the warm-up, times gamma past each milestone."""
    progress = min(1.0, iteration / config.warmup_iterations) if config.warmup_iterations else 1.0
    drops = sum(iteration >= round(fraction * config.iterations) for fraction in config.milestones)
    return (WARMUP_FACTOR + (1 - WARMUP_FACTOR) * progress) * config.gamma**drops


def one_cycle(config: TrainConfig, iteration: int) -> float:
    """Return the factor: half a cosine up over the warm-up, half a cosine down over the rest (Smith 2018).

    The cycle runs once over the still clips, if any, and once over the rest of the training.
    """
    start, stop = 0, config.iterations
    if iteration < config.still_iterations:
        stop = config.still_iterations
    elif config.still_iterations < config.iterations:
        start = config.still_iterations
    rise = min(config.warmup_iterations, int(ONE_CYCLE_LONGEST_RISE * (stop - start)))
    if iteration - start < rise:
        return _half_cosine(ONE_CYCLE_START, 1.0, (iteration - start) / rise)
    return _half_cosine(1.0, ONE_CYCLE_END, (iteration - start - rise) / max(1, stop - start - 1 - rise))


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Build the optimiser over every trainable parameter; each group carries its `lr_factor`."""
    fused = next(model.parameters()).is_cuda
    lr = peak_learning_rate(config)
    if config.optimizer == "sgd":
        sgd = torch.optim.SGD(_sgd_groups(model, config), lr=lr, momentum=config.momentum, fused=fused)
        _give_momentum(sgd)
        sgd.register_load_state_dict_post_hook(_give_momentum)  # a checkpoint may hold none, or some
        return sgd
    return torch.optim.AdamW(_adamw_groups(model, config), lr=lr, fused=fused)


def _give_momentum(sgd: Optimizer) -> None:
    """Give every parameter a momentum of zero where it has none, which leaves its first update as it is.

    The fused kernels take a group only if all of it has momentum or none, and still clips train a part alone. Where
    they skip a parameter's first update, they leave it momentum that nobody has written to.
    """
    for group in sgd.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            state = sgd.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def _sgd_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    def settings(name: str, _: nn.Parameter) -> tuple[float, float]:
        is_bias = name.split(".")[-1] == "bias"
        return (0.0, BIAS_LR_FACTOR) if is_bias else (config.weight_decay, 1.0)

    return _grouped(model, config, settings)


def _adamw_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    def settings(_: str, parameter: nn.Parameter) -> tuple[float, float]:
        # Biases and norms: decay would only pull them away from where the norm needs them.
        return (config.weight_decay if parameter.ndim > 1 else 0.0, 1.0)

    return _grouped(model, config, settings)


def _grouped(
    model: nn.Module, config: TrainConfig, settings: Callable[[str, nn.Parameter], tuple[float, float]]
) -> list[dict[str, Any]]:
    """Gather the parameters by (weight decay, learning-rate factor), in the order in which these appear."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in _trainable(model):
        weight_decay, factor = settings(name, parameter)
        if name.split(".")[0] == "alignment":
            factor *= config.alignment_lr_factor
        groups.setdefault((weight_decay, factor), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay, "lr_factor": factor}
        for (weight_decay, factor), parameters in groups.items()
    ]


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
