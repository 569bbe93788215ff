"""The end-to-end benchmark where there is no GPU: it says so, and rehearses without inventing a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.streaming import (
    StreamingError,
    copied,
    full_config,
    goals,
    measure,
    rehearse,
    watch_on_the_cpu,
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, and the benchmark would run")
def test_without_a_gpu_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(StreamingError, match="no CUDA GPU on this machine, so that nothing was measured"):
        measure(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_rehearsal_runs_every_way_and_has_no_times(tmp_path: Path) -> None:
    report = json.loads(rehearse(tmp_path).read_text())
    assert report["machine"] == "no GPU: a rehearsal"
    reasons = {row["what"]: row["not measured"] for row in report["times"]}
    assert list(reasons) == ["PyTorch", "PyTorch, compiled, CUDA graphs", "TensorRT fp16"]
    assert reasons["PyTorch"] == reasons["PyTorch, compiled, CUDA graphs"] == "a rehearsal"
    assert {row["frames/s"] for row in report["times"]} == {None}
    assert {row["met"] for row in report["goals"]} == {None}
    assert report["memory"][0]["frames"] == 8


@pytest.mark.slow
def test_memory_is_watched_without_a_gpu(tmp_path: Path) -> None:
    report = json.loads(watch_on_the_cpu(tmp_path, 20).read_text())
    assert [(row["what"], row["frames"]) for row in report["memory"]] == [
        ("ONNX Runtime", 20),
        ("PyTorch", 20),
    ]
    assert all(row["host MiB after a tenth"] > 50 for row in report["memory"])


def test_goals_are_met_by_what_was_measured() -> None:
    times = [
        {"what": "PyTorch", "frames/s": 50.0, "p50 ms": 20.0, "p99 ms": 30.0},
        {"what": "TensorRT fp16", "frames/s": 220.0, "p50 ms": 4.0, "p99 ms": 8.0},
    ]
    met = {row["goal"]: row["met"] for row in goals(times, {"GPU growth MiB": 0.0})}
    assert met == {
        "TensorRT / PyTorch, frames/s": True,
        "TensorRT frames/s": True,
        "TensorRT p50 / p99": False,
        "-(GPU growth MiB)": True,
    }


def test_the_measured_network_is_small_with_resnet_101() -> None:
    config = full_config()
    assert (config.model.preset, config.model.backbone.name) == ("small", "resnet101")
    assert config.inference.num_relation == 24


def test_outputs_of_a_recorded_part_are_copied() -> None:
    values = (torch.ones(2), [1])
    found = copied(values)
    assert torch.equal(found[0], values[0])
    assert found[0] is not values[0]
