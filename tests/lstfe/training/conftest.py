"""A training small enough for a test: the real model, narrow, on 64x96 frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from lstfe.config import Config, ModelConfig, SamplingConfig, TrainConfig


@pytest.fixture(autouse=True, scope="session")
def on_the_cpu() -> Iterator[None]:
    """Bits are promised on the CPU only: machines with a GPU test the same thing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


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
