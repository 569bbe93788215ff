"""The training loop: from prepared frames to a trained model, resumable at every checkpoint.

It reports through the functions it is handed (`log`, `validate`) and knows no tracker. One process or many
(torchrun) run the same code; the global batch and the seeds of its clips do not depend on their number.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from lstfe.config import Config, TrainConfig
from lstfe.data.loader import make_loader
from lstfe.data.prepared import load_split
from lstfe.model.detector import LSTFENet
from lstfe.training.checkpoint import (
    Checkpoint,
    checkpoint_path,
    load_checkpoint,
    load_newest_checkpoint,
    load_state,
    load_weights,
    restore_rng_state,
    rng_state,
    save_checkpoint,
    save_weights,
)
from lstfe.training.determinism import reproducible_cpu
from lstfe.training.distributed import World, broadcast_from_main, gather_from_all, joined_world
from lstfe.training.due import is_checkpoint_due, is_report_due, is_validated, is_validation_due
from lstfe.training.feed import Feed
from lstfe.training.interval import Interval
from lstfe.training.machine import describe_machine
from lstfe.training.optimizer import describe_learning_rate, learning_rate
from lstfe.training.progress import Progress
from lstfe.training.skipped import SkippedClips, SkippedUpdates, TrainingError
from lstfe.training.step import Stepper
from lstfe.training.stop import StopRequest, ValidationInterrupted, stop_for
from lstfe.training.warm_start import warm_start
from lstfe.types import Clip

logger = logging.getLogger(__name__)

Log = Callable[[dict[str, float], int], None]
"""Takes metrics and the number of updates done."""
Validate = Callable[[LSTFENet, int], dict[str, float]]
"""Takes the model in evaluation mode and the number of updates done; returns metrics."""


@dataclass(slots=True)
class TrainedModel:
    """What training leaves behind, the same in every process."""

    model: LSTFENet
    """In evaluation mode, on the device it was trained on."""
    label_names: list[str]
    """Category of label 1, 2, ..."""
    history: list[dict[str, float]]
    """Every line of metrics and every validation, in order; `iteration` counts updates."""
    machine: dict[str, str]
    """Versions and device."""


def train(
    config: Config,
    *,
    prepared_dir: Path,
    checkpoint_dir: Path,
    log: Log,
    validate: Validate | None,
    progress: bool = True,
    micro_batch: int | None = None,
) -> TrainedModel:
    """Train on the prepared data set's train split, going on from the newest checkpoint in `checkpoint_dir`.

    `config` comes from `resolve_method`. Under torchrun every process calls this alike; `log`, `validate` and
    the progress run in rank 0 only, and `checkpoint_dir` must be one folder for all. A process puts at most
    `micro_batch` clips through the network at a time (None: its share of the batch), which changes rounding alone.

    Raises ConfigError when the batch cannot be shared equally by the processes, WeightsError when `train.warm_start`
    does not fit, TrainingError when more clips or updates had to be skipped than `data.max_bad_fraction` and
    `train.max_skipped_updates` allow, TrainingStopped (a SystemExit) after SIGTERM and KeyboardInterrupt after Ctrl-C,
    once the state is saved. A full disk costs checkpoints, with a warning, and nothing else.
    """
    with joined_world() as world, reproducible_cpu(world.device), StopRequest(world) as stop:
        training = _Training(
            config,
            world,
            stop,
            prepared_dir=prepared_dir,
            checkpoint_dir=checkpoint_dir,
            log=log,
            validate=validate,
            micro_batch=micro_batch,
        )
        training.start()
        training.run(progress=progress)
        training.release()
        machine = describe_machine(world)
        return TrainedModel(training.model.eval(), training.label_names, training.history, machine)


class _Training:
    """One process's share of a training: model, optimiser, and how far they have come."""

    def __init__(
        self,
        config: Config,
        world: World,
        stop: StopRequest,
        *,
        prepared_dir: Path,
        checkpoint_dir: Path,
        log: Log,
        validate: Validate | None,
        micro_batch: int | None,
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
        self.stop, self.best_path = stop, checkpoint_dir / "best.safetensors"
        self.stepper = Stepper(self.model, config, world, micro_batch=micro_batch)
        self.iteration = 0
        self.history: list[dict[str, float]] = []
        self.skipped_clips = SkippedClips(
            max_fraction=config.data.max_bad_fraction, clips_per_epoch=self.num_clips_per_epoch
        )
        self.skipped_updates = SkippedUpdates(checkpoint_dir, limit=config.train.max_skipped_updates)
        self.failed_checkpoints = 0
        """Of rank 0, since the last report."""

    def start(self) -> None:
        """Go on from the newest checkpoint that rank 0 can read; without one, start at the first update."""
        if self.world.is_main:
            self._require_validation()
            logger.info("%s", describe_learning_rate(self.config.train))
        checkpoint = load_newest_checkpoint(self.checkpoint_dir) if self.world.is_main else None
        iteration = broadcast_from_main(checkpoint.iteration if checkpoint else None)
        if iteration is None:
            self._start_afresh()
            return
        path = checkpoint_path(self.checkpoint_dir, iteration)
        self._restore(checkpoint or load_checkpoint(path), path)

    def _require_validation(self) -> None:
        if self.config.train.release != "last" and self.validate is None:
            raise TrainingError(
                f"train.release {self.config.train.release}: nothing is validated, because the data set has no split "
                "val. Prepare one that has, or set train.release: last."
            )

    def _start_afresh(self) -> None:
        train = self.config.train
        if train.warm_start is not None:
            report = warm_start(self.model, Path(train.warm_start), min_coverage=train.warm_start_coverage)
            if self.world.is_main:
                logger.info("%s", report)
            if self.stepper.mean_weights is not None:
                self.stepper.mean_weights.restart()

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        remedy = f"Remove {self.checkpoint_dir} to train this one from the start."
        load_state(self.model, checkpoint.model, where=str(path), remedy=remedy)
        self.stepper.optimizer.load_state_dict(checkpoint.optimizer)
        if self.stepper.mean_weights is not None:
            self.stepper.mean_weights.load_state_dict(checkpoint.mean_weights)
        self.iteration, self.history = checkpoint.iteration, checkpoint.history
        self.stepper.start_phase(self.iteration)
        if self.world.rank < len(checkpoint.rng):
            restore_rng_state(checkpoint.rng[self.world.rank], self.world.device)

    def run(self, *, progress: bool) -> None:
        """Do the updates that are left, with metrics, checkpoints and validations in between."""
        if self._is(is_validation_due) and not is_validated(self.history, self.iteration):
            self._validate()  # the process was killed between a checkpoint and its validation
        last = self.config.train.iterations
        if self.iteration >= last:
            return
        shown = progress and self.world.is_main
        with Feed(self._batches()) as feed, Progress(total=last, start=self.iteration, enabled=shown) as bar:
            interval = Interval(self.world.device)
            while self.iteration < last:
                self._update(feed, interval)
                bar.advance()
                stopped = self.stop.agreed_signal()
                if stopped or self._is(is_report_due):
                    bar.show(self._report(interval), self.iteration)
                    if stopped or self._is(is_checkpoint_due):
                        self._save()
                    if stopped:
                        self._leave(stopped)
                    if self._is(is_validation_due):
                        self._validate()
                    interval.restart()

    def release(self) -> None:
        """Leave the model with the weights to detect with: the running mean, or the best, where set so."""
        if self.stepper.mean_weights is not None:
            self.stepper.mean_weights.adopt()
        if self.config.train.release != "last" and self.best_path.is_file():
            load_weights(self.model, self.best_path)

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

    def _update(self, feed: Feed, interval: Interval) -> None:
        clips, waited = feed.next()
        numbers = self._clip_numbers(len(clips))
        self.skipped_clips.note(clips, numbers)
        result = self.stepper.step(clips, numbers, self.iteration)
        self.skipped_updates.note(self.iteration, result, clips, numbers)
        interval.add(
            result.losses,
            is_finite=result.is_finite,
            num_images=sum(len(clip.frames) for clip in clips) * self.world.size,
            waited=waited,
            flops=self.stepper.flops,
        )
        self.iteration += 1

    def _clip_numbers(self, count: int) -> range:
        """Return the numbers, over the whole training, of this process's `count` clips of the next update."""
        first = self.iteration * self.config.train.batch_size + self.world.rank * count
        return range(first, first + count)

    # ---------------------------------------------------------------------- between two updates

    def _is(self, due: Callable[[TrainConfig, int], bool]) -> bool:
        return due(self.config.train, self.iteration)

    def _report(self, interval: Interval) -> dict[str, float]:
        metrics = interval.report()
        num_clips = self.iteration * self.config.train.batch_size
        skipped_clips = self.skipped_clips.count(self._so_far("skipped_clips"), num_clips=num_clips)
        before = self._so_far("skipped_updates")
        skipped_updates = self.skipped_updates.count(before, is_main=self.world.is_main)
        failed = self._so_far("failed_checkpoints") + broadcast_from_main(self.failed_checkpoints)
        self.failed_checkpoints = 0
        metrics |= {
            "skipped_clips": float(skipped_clips),
            "skipped_updates": float(skipped_updates),
            "failed_checkpoints": float(failed),
            "lr": learning_rate(self.config.train, self.iteration - 1),
        }
        self._record(metrics)
        return metrics

    def _so_far(self, name: str) -> int:
        """Return what the last line of metrics counts under `name`."""
        return int(next((line[name] for line in reversed(self.history) if name in line), 0))

    def _record(self, metrics: dict[str, float]) -> None:
        self.history.append({"iteration": self.iteration} | metrics)
        if self.world.is_main:
            self.log(metrics, self.iteration)

    def _save(self) -> None:
        rng = gather_from_all(rng_state(self.world.device))
        if not self.world.is_main:
            return
        mean_weights = self.stepper.mean_weights
        checkpoint = Checkpoint(
            iteration=self.iteration,
            model=self.model.state_dict(),
            optimizer=self.stepper.optimizer.state_dict(),
            rng=rng,
            history=self.history,
            mean_weights={} if mean_weights is None else mean_weights.state_dict(),
        )
        with self._surviving_a_full_disk("this checkpoint"):
            save_checkpoint(checkpoint, self.checkpoint_dir, num_kept=self.config.train.keep_checkpoints)

    @contextmanager
    def _surviving_a_full_disk(self, what: str) -> Iterator[None]:
        """Report what cannot be written and go on; what was written before stays as it is."""
        try:
            yield
        except OSError as error:
            self.failed_checkpoints += 1
            reason = error.strerror or str(error)
            logger.warning(
                "%s: %s is not written (%s); training goes on", self.checkpoint_dir, what, reason.lower()
            )

    def _leave(self, number: int) -> None:
        """End all processes together, once rank 0 has saved."""
        if self.world.is_main:
            logger.warning("stopped after update %d; the same command goes on from there", self.iteration)
        gather_from_all(None)
        stop_for(number)

    def _validate(self) -> None:
        """Let rank 0 validate while the others wait for what it found."""
        metrics, stopped = dict[str, float](), 0
        if self.world.is_main and self.validate is not None:
            try:
                with self.stepper.detecting_weights():
                    with self.stop.interrupting():
                        metrics = self.validate(self.model.eval(), self.iteration)
                    self._keep_best(metrics)
            except ValidationInterrupted:
                stopped = self.stop.signal
        metrics, stopped = broadcast_from_main((metrics, stopped))
        if stopped:
            if not self._is(is_checkpoint_due):
                self._save()
            self._leave(stopped)
        if metrics:
            self._record(metrics)

    def _keep_best(self, metrics: dict[str, float]) -> None:
        """Keep the weights just validated if none before were better, by the figure `train.release`."""
        name = self.config.train.release
        if name == "last":
            return
        if name not in metrics:
            raise TrainingError(
                f"train.release {name}: no such figure, the validation gives {', '.join(metrics) or 'none'}. "
                "Choose one of these, or last."
            )
        if metrics[name] > max((line[name] for line in self.history if name in line), default=-math.inf):
            with self._surviving_a_full_disk("the best model"):
                save_weights(self.model, self.best_path)
