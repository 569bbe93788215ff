from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.benchmark import FIGURES, _commit, bench_rows, benchmark, graph_rows, moving_texture
from deploy.bundle import BundleError


@pytest.fixture(scope="module")
def report(bundle_dir: Path) -> dict[str, Any]:
    return benchmark(bundle_dir, ["onnx", "nonsense", "tensorrt"], num_frames=6)


def test_each_backend_is_measured_in_a_process_of_its_own(report: dict[str, Any]) -> None:
    row = report["backends"][0]
    assert row["reason"] is None
    assert (row["num_frames"], row["frame_size"]) == (6, (64, 85))
    assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert row["frames_per_second"] == pytest.approx(1e3 / row["p50_ms"], rel=0.9)
    assert row["cold_start_s"] > 0.05, "the process and its libraries start, too"
    assert row["host_peak_mib"] > 20
    assert row["device_mib"] is None
    spent = sum(graph["ms_per_frame"] for graph in row["graphs"])
    assert 0.2 * row["p50_ms"] < spent < 5 * row["p50_ms"], "a frame is its graphs"
    assert {name for _, name, *_ in graph_rows(report)} >= {"backbone", "relation", "preprocess"}


def test_a_backend_that_cannot_run_has_a_reason_and_no_figures(report: dict[str, Any]) -> None:
    for row in report["backends"][1:]:
        assert row["reason"]
        assert {row[name] for name in (*FIGURES, "graphs")} == {None}
    assert "backend 'nonsense' is not known" in report["backends"][1]["reason"]
    assert "\n" not in report["backends"][2]["reason"]
    assert bench_rows(report)[1][1:-1] == ("-",) * len(FIGURES)


def test_a_report_says_what_was_measured_where(report: dict[str, Any]) -> None:
    assert report["bundle"]["created_from"] == "0123abc"
    assert report["machine"]["packages"]["onnxruntime"]
    assert report["machine"]["cores"] >= 1
    assert report["source"] == "moving texture"


def test_a_bundle_or_a_source_that_is_not_there_ends_the_run(bundle_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a bundle"):
        benchmark(tmp_path / "none", ["onnx"])
    with pytest.raises(ValueError, match="no such file or folder"):
        benchmark(bundle_dir, ["onnx"], source=str(tmp_path / "none.mp4"))


def test_the_texture_moves_from_frame_to_frame() -> None:
    first, second = moving_texture(2, (32, 48))
    assert first.shape == (32, 48, 3)
    assert (first != second).any()


def test_an_installed_copy_does_not_report_the_commit_of_the_repository_around_it(tmp_path: Path) -> None:
    installed = tmp_path / "venv" / "site-packages"
    installed.mkdir(parents=True)
    for command in (
        ["init"],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)

    assert _commit(installed) == "unknown"
    (installed / "pyproject.toml").touch()
    assert _commit(installed) != "unknown"
