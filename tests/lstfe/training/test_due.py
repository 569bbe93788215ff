"""Which update is followed by what."""

from __future__ import annotations

from dataclasses import replace

from lstfe.config import TrainConfig
from lstfe.training.due import is_checkpoint_due, is_report_due, is_validated, is_validation_due

CONFIG = TrainConfig(iterations=20, log_every=6, checkpoint_every=8, validate_every=9, validation_frames=4)
UPDATES = range(1, 21)


def test_a_line_ends_regularly_and_with_each_checkpoint_and_validation() -> None:
    assert [i for i in UPDATES if is_checkpoint_due(CONFIG, i)] == [8, 16, 20]
    assert [i for i in UPDATES if is_validation_due(CONFIG, i)] == [8, 9, 18, 20]
    assert [i for i in UPDATES if is_report_due(CONFIG, i)] == [6, 8, 9, 12, 16, 18, 20]


def test_without_frames_or_updates_there_is_nothing_to_validate() -> None:
    config = replace(CONFIG, validation_frames=0)
    assert [i for i in UPDATES if is_validation_due(config, i)] == []
    assert not is_validation_due(CONFIG, 0)


def test_a_validation_is_told_from_a_line_of_losses() -> None:
    assert not is_validated([], 8)
    assert not is_validated([{"iteration": 8, "lr": 0.1}, {"iteration": 4, "val.coco.AP": 0.5}], 8)
    assert is_validated([{"iteration": 8, "lr": 0.1}, {"iteration": 8, "val.coco.AP": 0.5}], 8)
