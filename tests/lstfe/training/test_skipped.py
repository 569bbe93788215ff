"""What cannot be read or is not finite is left out, counted and named; too much of it stops the training."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lstfe.config import Config
from lstfe.data.frames import FrameStore
from lstfe.model.detector import LSTFENet
from lstfe.training.checkpoint import load_newest_checkpoint
from lstfe.training.skipped import TrainingError

from .trainings import assert_same_bits, losses_of, train_quietly, with_train


@pytest.fixture
def broken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the fifth update is not a number."""
    forward = LSTFENet.forward

    def forward_until_update_five(model: LSTFENet, batch: object) -> dict[str, Tensor]:
        calls.append(1)
        losses = forward(model, batch)
        return losses | {"classification": losses["classification"] * (torch.nan if len(calls) == 5 else 1)}

    calls: list[int] = []
    monkeypatch.setattr(LSTFENet, "forward", forward_until_update_five)


@pytest.mark.usefixtures("broken_once")
def test_an_update_that_is_not_finite_is_skipped_counted_and_dumped_with_its_clips(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    trained = train_quietly(with_train(tiny_config, log_every=2), tiny_prepared, tmp_path)
    counts = {entry["iteration"]: entry["skipped_updates"] for entry in trained.history}
    assert counts == {2: 0, 3: 0, 4: 0, 6: 1, 8: 1}
    assert all(math.isfinite(entry["loss"]) for entry in trained.history)
    assert all(tensor.isfinite().all() for tensor in trained.model.state_dict().values())
    (record,) = [json.loads(line) for line in (tmp_path / "skipped_updates.jsonl").read_text().splitlines()]
    assert (record["iteration"], record["rank"]) == (4, 0)
    assert (record["loss"], record["loss_classification"], record["gradient_norm"]) == ("nan", "nan", "nan")
    assert record["loss_objectness"] > 0
    assert [clip["clip"] for clip in record["clips"]] == [8, 9]
    assert all(len(clip["frames"]) == 5 for clip in record["clips"])


@pytest.mark.usefixtures("broken_once")
def test_past_the_limit_of_skipped_updates_training_stops_and_leaves_sound_checkpoints(
    tiny_config: Config, tiny_prepared: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        TrainingError, match=r"1 updates .* update 5: .*loss_classification nan.*Lower train\.lr"
    ):
        train_quietly(with_train(tiny_config, max_skipped_updates=0), tiny_prepared, tmp_path)
    checkpoint = load_newest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.iteration == 3
    assert all(tensor.isfinite().all() for tensor in checkpoint.model.values())


# ----------------------------------------------------------------------------------- unreadable clips


@pytest.fixture(scope="module")
def damaged(tiny_prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 2 and 9 of Video_001 each have a wrong byte."""
    damaged = tmp_path_factory.mktemp("damaged") / "prepared"
    shutil.copytree(tiny_prepared, damaged)
    path = damaged / "frames" / "Video_001.zip"
    content = bytearray(path.read_bytes())
    for jpeg in FrameStore(tiny_prepared / "frames").read_jpegs("Video_001", [2, 9]):
        content[content.index(jpeg) + 300] ^= 1
    path.write_bytes(content)
    return damaged


def with_limit(config: Config, max_bad_fraction: float) -> Config:
    config = replace(config, data=replace(config.data, max_bad_fraction=max_bad_fraction))
    return with_train(config, still_iterations=0)


def test_training_goes_on_past_unreadable_clips_counts_and_names_them(
    tiny_config: Config, damaged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_limit(tiny_config, 0.9)
    with caplog.at_level("WARNING", logger="lstfe.training.skipped"):
        trained = train_quietly(config, damaged, tmp_path / "once")
    pattern = re.compile(
        r"clip \d+ is skipped, another takes its place: \S+Video_001\.zip: frame [29] is damaged"
    )
    assert [message for message in caplog.messages if not pattern.match(message)] == []
    counts = [entry["skipped_clips"] for entry in trained.history]
    assert len(counts) == 8
    assert counts == sorted(counts)
    assert counts[-1] == len(caplog.messages) > 1
    again = train_quietly(with_train(config, num_workers=1), damaged, tmp_path / "again")
    assert_same_bits(again.model.state_dict(), trained.model.state_dict())
    assert losses_of(again.history) == losses_of(trained.history)


def test_too_many_unreadable_clips_stop_the_training_which_goes_on_under_a_higher_limit(
    tiny_config: Config, damaged: Path, tmp_path: Path
) -> None:
    expected = train_quietly(with_limit(tiny_config, 0.9), damaged, tmp_path / "expected")
    first = next(entry["iteration"] for entry in expected.history if entry["skipped_clips"])
    message = (
        rf"train: {int(expected.history[int(first) - 1]['skipped_clips'])} of 32 clips cannot be read, more than "
        r"data\.max_bad_fraction 0\.01 allows\. The last: \S+Video_001\.zip: frame [29] is damaged"
    )
    with pytest.raises(TrainingError, match=message):
        train_quietly(with_limit(tiny_config, 0.01), damaged, tmp_path / "stopped")
    resumed = train_quietly(with_limit(tiny_config, 0.9), damaged, tmp_path / "stopped")
    assert_same_bits(resumed.model.state_dict(), expected.model.state_dict())
    assert losses_of(resumed.history) == losses_of(expected.history)
