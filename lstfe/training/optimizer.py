"""Optimisers and learning-rate schedules (paper 4.1: SGD with warm-up and a drop at two thirds).

A schedule is a pure function of the iteration: resuming needs no scheduler state.
"""

from __future__ import annotations

import math
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
    """Return the factor: half a cosine up over the warm-up, half a cosine down over the rest (Smith 2018)."""
    rise = min(config.warmup_iterations, int(ONE_CYCLE_LONGEST_RISE * config.iterations))
    if iteration < rise:
        return _half_cosine(ONE_CYCLE_START, 1.0, iteration / rise)
    return _half_cosine(1.0, ONE_CYCLE_END, (iteration - rise) / max(1, config.iterations - 1 - rise))


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def build_optimizer(model: nn.Module, config: TrainConfig) -> Optimizer:
    """Build the optimiser over every trainable parameter; each group carries its `lr_factor`."""
    fused = next(model.parameters()).is_cuda
    lr = peak_learning_rate(config)
    if config.optimizer == "sgd":
        groups = _sgd_groups(model, config.weight_decay)
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, fused=fused)
    return torch.optim.AdamW(_adamw_groups(model, config.weight_decay), lr=lr, fused=fused)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Give every parameter group its share of `lr`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def _sgd_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trainable = _trainable(model)
    biases = [parameter for name, parameter in trainable if name.split(".")[-1] == "bias"]
    others = [parameter for name, parameter in trainable if name.split(".")[-1] != "bias"]
    return [
        {"params": others, "weight_decay": weight_decay, "lr_factor": 1.0},
        {"params": biases, "weight_decay": 0.0, "lr_factor": BIAS_LR_FACTOR},
    ]


def _adamw_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = [parameter for _, parameter in _trainable(model)]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay, "lr_factor": 1.0},
        # Biases and norms: decay would only pull them away from where the norm needs them.
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0, "lr_factor": 1.0},
    ]


def _trainable(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
