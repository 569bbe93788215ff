"""The training loop: from prepared frames to a trained model, resumable at every checkpoint.

It reports through the functions it is handed (`log`, `validate`) and knows no tracker. One process or many
(torchrun) run the same code; the global batch and the seeds of its clips do not depend on their number.
"""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from lstfe.config import Config
from lstfe.data.loader import make_loader
from lstfe.data.prepared import load_split
from lstfe.data.transforms import collate, jitter_colours
from lstfe.errors import UserError
from lstfe.model.detector import LSTFENet
from lstfe.training.checkpoint import (
    Checkpoint,
    checkpoint_path,
    load_checkpoint,
    load_newest_checkpoint,
    load_state,
    restore_rng_state,
    rng_state,
    save_checkpoint,
)
from lstfe.training.determinism import clip_seeds, reproducible_cpu, seed_update
from lstfe.training.distributed import World, broadcast_from_main, gather_from_all, joined_world
from lstfe.training.interval import Interval
from lstfe.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from lstfe.training.precision import multiplies_bf16
from lstfe.training.progress import Progress
from lstfe.types import Clip

logger = logging.getLogger(__name__)

Log = Callable[[dict[str, float], int], None]
"""Takes metrics and the number of updates done."""
Validate = Callable[[LSTFENet, int], dict[str, float]]
"""Takes the model in evaluation mode and the number of updates done; returns metrics."""


class TrainingError(UserError):
    """Training cannot start or go on."""


@dataclass(slots=True)
class TrainedModel:
    """What training leaves behind, the same in every process."""

    model: LSTFENet
    """In evaluation mode, on the device it was trained on."""
    label_names: list[str]
    """Category of label 1, 2, ..."""
    history: list[dict[str, float]]
    """Every line of metrics and every validation, in order; `iteration` counts updates."""


def train(
    config: Config,
    *,
    prepared_dir: Path,
    checkpoint_dir: Path,
    log: Log,
    validate: Validate | None,
    progress: bool = True,
) -> TrainedModel:
    """Train on the prepared data set's train split, going on from the newest checkpoint in `checkpoint_dir`.

    `config` comes from `resolve_method`. Under torchrun every process calls this alike; `log`, `validate` and
    the progress run in rank 0 only, and `checkpoint_dir` must be one folder for all. Raises ConfigError when
    the batch cannot be shared equally by the processes, TrainingError when a loss is not finite or more clips than
    `data.max_bad_fraction` allows cannot be read.
    """
    with joined_world() as world, reproducible_cpu(world.device):
        training = _Training(
            config,
            world,
            prepared_dir=prepared_dir,
            checkpoint_dir=checkpoint_dir,
            log=log,
            validate=validate,
        )
        training.resume()
        training.run(progress=progress)
        return TrainedModel(training.model.eval(), training.label_names, training.history)


class _Training:
    """One process's share of a training: model, optimiser, and how far they have come."""

    def __init__(
        self,
        config: Config,
        world: World,
        *,
        prepared_dir: Path,
        checkpoint_dir: Path,
        log: Log,
        validate: Validate | None,
    ) -> None:
        self.config, self.world = config, world
        self.checkpoint_dir = checkpoint_dir
        self.log, self.validate = log, validate
        self.annotations, self.store = load_split(prepared_dir, "train")
        self.label_names = self.annotations.label_names
        names = self.annotations.video_by_name
        self.num_clips_per_epoch = sum(len(self.annotations.current_frames(name)) for name in names)
        torch.manual_seed(config.train.seed)
        model = LSTFENet(config.model, num_classes=len(self.label_names) + 1)
        self.model = model.to(world.device).to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(model, config.train)
        self.iteration = 0
        self.parallel: LSTFENet | DistributedDataParallel = model
        self._start_phase()
        self.history: list[dict[str, float]] = []
        self.faults: list[str] = []
        """Of this process, since the last report."""

    def resume(self) -> None:
        """Go on from the newest checkpoint that rank 0 can read; without one, start at the first update."""
        checkpoint = load_newest_checkpoint(self.checkpoint_dir) if self.world.is_main else None
        iteration = broadcast_from_main(checkpoint.iteration if checkpoint else None)
        if iteration is None:
            return
        path = checkpoint_path(self.checkpoint_dir, iteration)
        checkpoint = checkpoint or load_checkpoint(path)
        remedy = f"Remove {self.checkpoint_dir} to train this one from the start."
        load_state(self.model, checkpoint.model, where=str(path), remedy=remedy)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.iteration, self.history = checkpoint.iteration, checkpoint.history
        self._start_phase()
        if self.world.rank < len(checkpoint.rng):
            restore_rng_state(checkpoint.rng[self.world.rank], self.world.device)

    def run(self, *, progress: bool) -> None:
        """Do the updates that are left, with metrics, checkpoints and validations in between."""
        if self._is_validation_due() and not self._is_validated():
            self._validate()  # the process was killed between a checkpoint and its validation
        last = self.config.train.iterations
        if self.iteration >= last:
            return
        batches = self._batches()
        with Progress(total=last, start=self.iteration, enabled=progress and self.world.is_main) as bar:
            interval = Interval()
            while self.iteration < last:
                started = time.perf_counter()
                clips = next(batches)
                waited = time.perf_counter() - started
                self._note_faults(clips)
                interval.add(self._update(clips), num_images=self._num_images(clips), waited=waited)
                bar.advance()
                if self._is_report_due():
                    bar.show(self._report(interval), self.iteration)
                    self._save_and_validate_if_due()
                    interval.restart()

    # -------------------------------------------------------------------------------- one update

    def _batches(self) -> Iterator[list[Clip]]:
        return make_loader(
            self.config,
            self.annotations,
            self.store,
            start_iteration=self.iteration,
            rank=self.world.rank,
            world_size=self.world.size,
        )

    def _update(self, clips: list[Clip]) -> dict[str, Tensor]:
        train = self.config.train
        seed_update(train.seed, self.iteration, self.world.rank)
        batch = collate(clips, self.config.model, self.world.device)
        batch.seeds = clip_seeds(train.seed, self._clip_numbers(len(clips)))
        if train.colour_jitter > 0:
            jitter_colours(batch, train.colour_jitter)
        set_learning_rate(self.optimizer, learning_rate(train, self.iteration))
        self.model.train()
        with self._autocast():
            losses: dict[str, Tensor] = self.parallel(batch)
        loss = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if train.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), train.max_gradient_norm)
        self.optimizer.step()
        self.iteration += 1
        if self.iteration == train.still_iterations:
            self._start_phase()
        return {"loss": loss} | {f"loss_{name}": value for name, value in losses.items()}

    def _start_phase(self) -> None:
        """Let the parameters of this phase train; still clips reach no temporal part."""
        # Deviation: the paper trains on whole clips throughout; still_iterations: 0 does so here.
        is_temporal = self.iteration >= self.config.train.still_iterations
        # The wrapper of the phase before must be gone, with its hooks, before the next one sets its own.
        self.parallel = self.model
        self.optimizer.zero_grad(set_to_none=True)
        gc.collect()
        for parameter in self.model.temporal_parameters():
            parameter.requires_grad_(is_temporal)
        if self.world.size > 1:
            # Parameters that get no gradient must not be known to it, or it would wait for theirs.
            self.parallel = DistributedDataParallel(self.model)

    def _note_faults(self, clips: list[Clip]) -> None:
        """Say which clips could not be read; their replacements are trained on."""
        for number, clip in zip(self._clip_numbers(len(clips)), clips, strict=True):
            for fault in clip.faults:
                logger.warning("clip %d is skipped, another takes its place: %s", number, fault)
            self.faults += clip.faults

    def _clip_numbers(self, count: int) -> range:
        """Return the numbers, over the whole training, of this process's `count` clips of the next update."""
        first = self.iteration * self.config.train.batch_size + self.world.rank * count
        return range(first, first + count)

    def _num_images(self, clips: list[Clip]) -> int:
        """Return the frames that this update puts through the backbone, over all processes."""
        return sum(len(clip.frames) for clip in clips) * self.world.size

    def _autocast(self) -> torch.autocast:
        device = self.world.device.type
        # bf16 keeps float32's range, so no loss scaler is needed; float16 would need one.
        enabled = self.config.train.amp == "auto" and multiplies_bf16(device)
        return torch.autocast(device, dtype=torch.bfloat16, enabled=enabled)

    # ---------------------------------------------------------------------- between two updates

    def _is_report_due(self) -> bool:
        is_line = self.iteration % self.config.train.log_every == 0
        # A line of metrics ends at each checkpoint, so that a resumed run reports the same means.
        return is_line or self._is_checkpoint_due() or self._is_validation_due()

    def _is_checkpoint_due(self) -> bool:
        train = self.config.train
        return self.iteration % train.checkpoint_every == 0 or self.iteration == train.iterations

    def _is_validation_due(self) -> bool:
        train = self.config.train
        if train.validation_frames == 0 or self.iteration == 0:
            return False
        is_regular = train.validate_every > 0 and self.iteration % train.validate_every == 0
        return is_regular or self.iteration in (train.checkpoint_every, train.iterations)

    def _is_validated(self) -> bool:
        return any(entry["iteration"] == self.iteration and "loss" not in entry for entry in self.history)

    def _report(self, interval: Interval) -> dict[str, float]:
        metrics = interval.report()
        broken = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if broken:
            raise TrainingError(
                f"train: a loss is not finite in the updates up to {self.iteration}: {broken}. "
                "Lower train.lr, set train.max_gradient_norm, or turn train.amp off; "
                f"the checkpoints in {self.checkpoint_dir} are older and sound."
            )
        metrics["skipped_clips"] = float(self._num_skipped_clips())
        metrics["lr"] = learning_rate(self.config.train, self.iteration - 1)
        self._record(metrics)
        return metrics

    def _num_skipped_clips(self) -> int:
        """Return how many clips could not be read so far, in all processes; TrainingError when those are too many."""
        before = next(
            (line["skipped_clips"] for line in reversed(self.history) if "skipped_clips" in line), 0
        )
        faults = [fault for of_process in gather_from_all(self.faults) for fault in of_process]
        self.faults = []
        num_skipped = int(before) + len(faults)
        # Of an epoch at least: a single clip is a large share of the first few.
        num_clips = max(self.iteration * self.config.train.batch_size, self.num_clips_per_epoch)
        if faults and num_skipped > self.config.data.max_bad_fraction * num_clips:
            raise TrainingError(
                f"train: {num_skipped} of {num_clips} clips cannot be read, more than data.max_bad_fraction "
                f"{self.config.data.max_bad_fraction} allows. The last: {faults[-1]}, "
                "or raise data.max_bad_fraction to go on without them."
            )
        return num_skipped

    def _record(self, metrics: dict[str, float]) -> None:
        self.history.append({"iteration": self.iteration} | metrics)
        if self.world.is_main:
            self.log(metrics, self.iteration)

    def _save_and_validate_if_due(self) -> None:
        if self._is_checkpoint_due():
            self._save()
        if self._is_validation_due():
            self._validate()

    def _save(self) -> None:
        rng = gather_from_all(rng_state(self.world.device))
        if self.world.is_main:
            checkpoint = Checkpoint(
                iteration=self.iteration,
                model=self.model.state_dict(),
                optimizer=self.optimizer.state_dict(),
                rng=rng,
                history=self.history,
            )
            save_checkpoint(checkpoint, self.checkpoint_dir)

    def _validate(self) -> None:
        """Let rank 0 validate while the others wait for what it found."""
        metrics: dict[str, float] = {}
        if self.world.is_main and self.validate is not None:
            metrics = self.validate(self.model.eval(), self.iteration)
        metrics = broadcast_from_main(metrics)
        if metrics:
            self._record(metrics)
