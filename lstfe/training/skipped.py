"""What a training leaves out and goes on without: clips that cannot be read, updates that are not finite."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lstfe.errors import UserError
from lstfe.training.distributed import gather_from_all
from lstfe.training.step import StepResult
from lstfe.types import Clip

logger = logging.getLogger(__name__)

DUMP_FILE = "skipped_updates.jsonl"


class TrainingError(UserError):
    """Training cannot start or go on."""


class SkippedClips:
    """Clips that could not be read, of all processes; their replacements are trained on."""

    def __init__(self, *, max_fraction: float, clips_per_epoch: int) -> None:
        self._max_fraction, self._clips_per_epoch = max_fraction, clips_per_epoch
        self._faults: list[str] = []
        """Of this process, since the last count."""

    def note(self, clips: Sequence[Clip], numbers: Sequence[int]) -> None:
        """Say which of the clips could not be read."""
        for number, clip in zip(numbers, clips, strict=True):
            for fault in clip.faults:
                logger.warning("clip %d is skipped, another takes its place: %s", number, fault)
            self._faults += clip.faults

    def count(self, before: int, *, num_clips: int) -> int:
        """Return how many were skipped so far, `before` of them before the last count.

        Raises TrainingError when those are too many of the first `num_clips` clips.
        """
        faults = [fault for of_process in gather_from_all(self._faults) for fault in of_process]
        self._faults = []
        num_skipped = before + len(faults)
        # Of an epoch at least: a single clip is a large share of the first few.
        num_clips = max(num_clips, self._clips_per_epoch)
        if faults and num_skipped > self._max_fraction * num_clips:
            raise TrainingError(
                f"train: {num_skipped} of {num_clips} clips cannot be read, more than data.max_bad_fraction "
                f"{self._max_fraction} allows. The last: {faults[-1]}, "
                "or raise data.max_bad_fraction to go on without them."
            )
        return num_skipped


@dataclass(frozen=True, slots=True)
class _Update:
    """What one process knows of one update, its numbers still on the device."""

    iteration: int
    result: StepResult
    clips: list[dict[str, Any]]


class SkippedUpdates:
    """Updates that were not done because loss or gradient was not finite: counted, and dumped for inspection."""

    def __init__(self, directory: Path, *, limit: int) -> None:
        self._path, self._limit = directory / DUMP_FILE, limit
        self._updates: list[_Update] = []

    def note(self, iteration: int, result: StepResult, clips: Sequence[Clip], numbers: Sequence[int]) -> None:
        """Remember an update (0-based) without waiting for the device; `count` looks at it."""
        described = [
            {"clip": number, "video": clip.video, "frames": list(clip.frame_indices), "flip": clip.flip}
            for number, clip in zip(numbers, clips, strict=True)
        ]
        self._updates.append(_Update(iteration, result, described))

    def count(self, before: int, *, is_main: bool) -> int:
        """Return how many updates were skipped so far; TrainingError when those are too many.

        Rank 0 appends each to `skipped_updates.jsonl`: its losses, its clips, and the process that had them.
        """
        updates, self._updates = self._updates, []
        if not updates:
            return before
        are_finite = torch.stack([update.result.is_finite for update in updates]).tolist()
        skipped = [_described(update) for update, fine in zip(updates, are_finite, strict=True) if not fine]
        if not skipped:
            return before
        # Every process skips the same updates, so all of them arrive here.
        records = [
            record | {"rank": rank} for rank, found in enumerate(gather_from_all(skipped)) for record in found
        ]
        if is_main:
            self._dump(records)
        num_skipped = before + len(skipped)
        last = max(records, key=lambda record: (record["iteration"], _num_broken(record)))
        logger.warning("update %d is skipped: %s", last["iteration"] + 1, _shortly(last))
        if num_skipped > self._limit:
            raise TrainingError(
                f"train: {num_skipped} updates were skipped because a loss or the gradient was not finite, more than "
                f"train.max_skipped_updates {self._limit} allows. The last, update {last['iteration'] + 1}: "
                f"{_shortly(last)}. {self._path} lists them with their clips. Lower train.lr, set "
                "train.max_gradient_norm, or turn train.amp off; the checkpoints beside that file are older and sound."
            )
        return num_skipped

    def _dump(self, records: list[dict[str, Any]]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)
        except OSError as error:
            logger.warning("%s: cannot be written (%s)", self._path, error)


def _described(update: _Update) -> dict[str, Any]:
    numbers = {name: loss.item() for name, loss in update.result.losses.items()}
    numbers["gradient_norm"] = update.result.gradient_norm.item()
    # As text: JSON knows neither nan nor inf.
    described = {name: value if abs(value) < float("inf") else str(value) for name, value in numbers.items()}
    return {"iteration": update.iteration, **described, "clips": update.clips}


def _num_broken(record: dict[str, Any]) -> int:
    return sum(isinstance(value, str) for value in record.values())


def _shortly(record: dict[str, Any]) -> str:
    broken = ", ".join(f"{name} {value}" for name, value in record.items() if isinstance(value, str))
    videos = ", ".join(sorted({clip["video"] for clip in record["clips"]}))
    return f"{broken} (videos {videos})"
