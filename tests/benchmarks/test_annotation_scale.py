"""The benchmark's data set is one that can be loaded, prepared and shown."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks.annotation_scale import STEPS, write_raw_data_set
from lstfe.data.coco_video import load_annotations


def test_the_generated_data_set_goes_through_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = importlib.import_module("lstfe.data.prepare")
    for name in ("read_as_annotated", "write_frames"):
        monkeypatch.setattr(stage, name, getattr(stage, name))  # put back what the step replaces
    write_raw_data_set(tmp_path / "raw", 3, 7)
    for step in STEPS.values():
        step(tmp_path / "raw")
    received = load_annotations(tmp_path / "raw" / "annotations" / "train.json")
    prepared = load_annotations(tmp_path / "prepared" / "annotations" / "train.json")
    assert (len(prepared.videos), len(prepared.images)) == (3, 21)
    assert list(prepared.images) == list(received.images)
    assert len(prepared.annotations) == len(received.annotations) > 21
