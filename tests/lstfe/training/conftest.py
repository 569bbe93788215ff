"""A training small enough for a test: the real model, narrow, on 64x96 frames."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lstfe.config import Config, ModelConfig, SamplingConfig, TrainConfig


@pytest.fixture(autouse=True, scope="session")
def _all_on_the_cpu(on_the_cpu: None) -> None:
    """Let every test of this folder run there."""


@pytest.fixture(scope="session")
def tiny_config(tiny: Callable[..., ModelConfig]) -> Config:
    """Eight updates of two clips, a checkpoint every third, a line of metrics each."""
    return Config(
        model=tiny(),
        sampling=SamplingConfig(short_term_range=3, num_short_term=2, num_candidates=2),
        train=TrainConfig(
            iterations=8,
            batch_size=2,
            optimizer="adamw",
            schedule="one_cycle",
            lr=1e-3,
            lr_batch_size=2,
            warmup_iterations=2,
            still_iterations=2,
            max_gradient_norm=10.0,
            num_workers=0,
            log_every=1,
            checkpoint_every=3,
            validation_frames=0,
        ),
    )
