"""Data that tests of many parts share: a tiny rendered data set, as received and prepared."""

from __future__ import annotations

from pathlib import Path

import pytest

from lstfe.config import PrepareConfig, RenderConfig
from lstfe.data.prepare import prepare_data_set
from lstfe.data.renderer import render_data_set

TINY_RENDER = RenderConfig(
    num_train_videos=2,
    num_val_videos=1,
    num_test_videos=1,
    num_frames=16,
    image_size=(64, 96),
    drone_size_px=(10.0, 24.0),
    drone_speed_px=(0.5, 2.0),
    num_branches=1,
)


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw data set, shared, so read only: 2 train, 1 val, 1 test videos of 16 frames, 64x96 pixels."""
    destination = tmp_path_factory.mktemp("data") / "raw"
    render_data_set(TINY_RENDER, destination)
    return destination


@pytest.fixture(scope="session")
def tiny_prepared(tiny_raw: Path) -> Path:
    """The same data set, prepared; shared, so read only."""
    destination = tiny_raw.with_name("prepared")
    prepare_data_set(tiny_raw, destination, PrepareConfig())
    return destination
