"""What comes after which update: lines of metrics, checkpoints, validations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lstfe.config import TrainConfig


def is_report_due(config: TrainConfig, iteration: int) -> bool:
    """Return whether a line of metrics ends after `iteration` updates.

    One ends at each checkpoint, so that a resumed run reports the same means.
    """
    is_line = iteration % config.log_every == 0
    return is_line or is_checkpoint_due(config, iteration) or is_validation_due(config, iteration)


def is_checkpoint_due(config: TrainConfig, iteration: int) -> bool:
    """Return whether a checkpoint is written after `iteration` updates."""
    return iteration % config.checkpoint_every == 0 or iteration == config.iterations


def is_validation_due(config: TrainConfig, iteration: int) -> bool:
    """Return whether rank 0 validates after `iteration` updates: regularly, at the first checkpoint, at the end."""
    if config.validation_frames == 0 or iteration == 0:
        return False
    is_regular = config.validate_every > 0 and iteration % config.validate_every == 0
    return is_regular or iteration in (config.checkpoint_every, config.iterations)


def is_validated(history: Sequence[Mapping[str, float]], iteration: int) -> bool:
    """Return whether the history holds the validation of `iteration`: an entry that is no line of an update."""
    return any(entry["iteration"] == iteration and "lr" not in entry for entry in history)
