"""One update: clips -> losses -> gradients -> weights, in as many parts as memory asks for.

Nothing here waits for the device, the model's own look-ups (NMS, sampling) apart: what is measured stays there until
somebody reads it.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from lstfe.config import Config, ConfigError, ModelConfig
from lstfe.data.transforms import collate, jitter_colours
from lstfe.model.detector import LSTFENet
from lstfe.training.determinism import clip_seeds, mixed_seed, seed_update
from lstfe.training.distributed import World
from lstfe.training.ema import MeanWeights
from lstfe.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from lstfe.training.precision import multiplies_bf16
from lstfe.training.speed import count_flops, peak_flops
from lstfe.types import Clip, ClipBatch


@dataclass(frozen=True, slots=True)
class StepResult:
    """One update as this process saw it, on its device."""

    losses: dict[str, Tensor]
    """`loss` and its parts `loss_...`, means over this process's clips."""
    gradient_norm: Tensor
    """Over all parameters, before clipping; the same in every process."""
    is_finite: Tensor
    """Whether the weights were changed: () bool, the same in every process."""


class Stepper:
    """Model, optimiser and running mean of one process, and how they take an update."""

    def __init__(self, model: LSTFENet, config: Config, world: World, *, micro_batch: int | None) -> None:
        """`micro_batch`: most clips that go through the network at a time; None = all that this process has."""
        self.model, self.config, self.world = model, config, world
        self._micro_batch = micro_batch
        self._scaled = scaled_models(config)
        self.optimizer = build_optimizer(model, config.train)
        self.mean_weights = MeanWeights(model, config.train.ema_decay) if config.train.ema_decay > 0 else None
        if config.train.compile:
            model.backbone.compile()
        self.flops: int | None = None
        """Operations of an update in this process, of the current phase; known only where the device's rate is."""
        self._counts_flops = peak_flops(world.device) is not None
        self.start_phase(0)

    def start_phase(self, iteration: int) -> None:
        """Let the parameters of the phase at `iteration` train; still clips reach no temporal part."""
        # Deviation: the paper trains on whole clips throughout; still_iterations: 0 does so here.
        is_temporal = iteration >= self.config.train.still_iterations
        # The wrapper of the phase before must be gone, with its hooks, before the next one sets its own.
        self._parallel: LSTFENet | DistributedDataParallel = self.model
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        for parameter in self.model.temporal_parameters():
            parameter.requires_grad_(is_temporal)
        self.flops = None
        if self.world.size > 1:
            # Parameters that get no gradient must not be known to it, or it would wait for theirs.
            self._parallel = DistributedDataParallel(self.model, find_unused_parameters=False)

    def step(self, clips: Sequence[Clip], numbers: range, iteration: int) -> StepResult:
        """Do update `iteration` (0-based) on this process's clips, whose numbers count through the training."""
        train = self.config.train
        seed_update(train.seed, iteration, self.world.rank)
        set_learning_rate(self.optimizer, learning_rate(train, iteration))
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._gradients(clips, numbers, iteration)
        norm = self._clipped_norm()
        is_finite = norm.isfinite()
        step_if(self.optimizer, is_finite)
        if self.mean_weights is not None:
            self.mean_weights.update(iteration + 1)
        if iteration + 1 == train.still_iterations:
            self.start_phase(iteration + 1)
        return StepResult(losses, norm, is_finite)

    def detecting_weights(self) -> AbstractContextManager[None]:
        """Give the model the weights to detect with for the length of a block."""
        return nullcontext() if self.mean_weights is None else self.mean_weights.adopted()

    def _gradients(self, clips: Sequence[Clip], numbers: range, iteration: int) -> dict[str, Tensor]:
        """Run `_accumulate`, counting its operations once a phase."""
        if not self._counts_flops or self.flops is not None:
            return self._accumulate(clips, numbers, iteration)
        found: list[dict[str, Tensor]] = []
        self.flops = count_flops(lambda: found.append(self._accumulate(clips, numbers, iteration)))
        return found[0]

    def _accumulate(self, clips: Sequence[Clip], numbers: range, iteration: int) -> dict[str, Tensor]:
        """Add up the gradients of the mean loss over all clips, micro-batch by micro-batch; return the losses."""
        sums: dict[str, Tensor] = {}
        size = self._micro_batch or len(clips)
        for first in range(0, len(clips), size):
            part = slice(first, first + size)
            batch = self._batch(clips[part], numbers[part], iteration)
            share = len(batch.targets) / len(clips)
            with self._exchange_after(is_last=first + size >= len(clips)):
                with self._autocast():
                    losses: dict[str, Tensor] = self._parallel(batch)
                loss = torch.stack(list(losses.values())).sum()
                # A loss of inf may have finite gradients, which only this process would take for good.
                weight = torch.where(loss.detach().isfinite(), share, torch.nan)
                loss.backward(gradient=weight)
            for name, value in {
                "loss": loss,
                **{f"loss_{name}": loss for name, loss in losses.items()},
            }.items():
                sums[name] = sums.get(name, 0) + value.detach() * share
        return sums

    def _batch(self, clips: Sequence[Clip], numbers: range, iteration: int) -> ClipBatch:
        train = self.config.train
        scaled = self._scaled[mixed_seed(train.seed, "scale", iteration) % len(self._scaled)]
        batch = collate(clips, scaled, self.world.device)
        batch.seeds = clip_seeds(train.seed, numbers)
        if train.colour_jitter > 0:
            jitter_colours(batch, train.colour_jitter)
        return batch

    def _clipped_norm(self) -> Tensor:
        parameters = self.model.parameters()
        limit = self.config.train.max_gradient_norm
        if limit is not None:
            return torch.nn.utils.clip_grad_norm_(parameters, limit)
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def _exchange_after(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Let the processes exchange gradients only once an update."""
        if is_last or not isinstance(self._parallel, DistributedDataParallel):
            return nullcontext()
        without_exchange: AbstractContextManager[None] = self._parallel.no_sync()
        return without_exchange

    def _autocast(self) -> torch.autocast:
        device = self.world.device.type
        # bf16 keeps float32's range, so no loss scaler is needed; float16 would need one.
        enabled = self.config.train.amp == "auto" and multiplies_bf16(device)
        return torch.autocast(device, dtype=torch.bfloat16, enabled=enabled)


def step_if(optimizer: Optimizer, is_finite: Tensor) -> None:
    """Let the optimiser change the weights if `is_finite`; on a GPU the device decides, and nobody waits for it."""
    if optimizer.defaults.get("fused"):
        # How torch's own gradient scaler skips a step; the fused kernels look at it.
        optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
        optimizer.step()
    elif is_finite:
        optimizer.step()


def scaled_models(config: Config) -> list[ModelConfig]:
    """Return the model's configuration at each of `train.image_scales`; raises ConfigError."""
    try:
        return [
            replace(
                config.model,
                image_short_side=round(config.model.image_short_side * scale),
                image_long_side=round(config.model.image_long_side * scale),
            )
            for scale in config.train.image_scales
        ]
    except ValueError as error:
        raise ConfigError(f"train.image_scales {config.train.image_scales}: {error}") from None
