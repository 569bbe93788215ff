"""The benchmark of training runs, and counts what it says it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.training import against_bare_passes, first_batches, on_a_gpu, path_config
from lstfe.config import Config, ModelConfig, SamplingConfig, TrainConfig


@pytest.fixture
def config(tiny: Callable[..., ModelConfig]) -> Config:
    """Build a configuration of updates that take milliseconds."""
    return Config(
        model=tiny(),
        sampling=SamplingConfig(short_term_range=3, num_short_term=2, num_candidates=2),
        train=TrainConfig(batch_size=2, optimizer="adamw", num_workers=0, validation_frames=0),
    )


def test_the_bare_passes_see_the_clips_of_the_training(config: Config, tiny_prepared: Path) -> None:
    short = replace(config, train=replace(config.train, iterations=9))
    batches = first_batches(short, tiny_prepared, 3)
    assert [len(clips) for clips in batches] == [2, 2, 2]
    assert {clip.frames.shape for clips in batches for clip in clips} == {(5, 3, 64, 96)}


@pytest.mark.parametrize("still", [False, True])
def test_the_report_gives_both_speeds_and_their_ratio(
    config: Config, tiny_prepared: Path, still: bool
) -> None:
    report = against_bare_passes(config, tiny_prepared, updates=5, repeats=1, still=still)
    assert ("still clips" if still else "whole clips") in report
    for part in ("the whole training", "its bare passes", "ratio ", "waiting for data"):
        assert part in report


def test_without_a_gpu_nothing_is_claimed_about_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_a_gpu(1) == "no GPU here: not measured"


def test_the_eager_path_is_float32_and_the_tuned_one_is_not() -> None:
    eager, tuned = path_config("resnet101", 4, "eager"), path_config("resnet101", 4, "tuned")
    assert (eager.train.amp, eager.train.compile) == ("off", False)
    assert (tuned.train.amp, tuned.train.compile) == ("auto", True)
    assert eager.model == tuned.model
    assert eager.model.backbone.name == "resnet101"
