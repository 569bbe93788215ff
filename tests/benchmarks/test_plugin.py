"""The GPU benchmark where there is no GPU: it says so, and rehearses without inventing a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.plugin.library import HOST_SOURCES, KERNEL_SOURCES, compile_sources

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.plugin", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def figures(report: Any, name: str) -> Iterator[Any]:
    """Yield every value under a name, wherever it is."""
    for key, value in report.items() if isinstance(report, dict) else enumerate(report):
        if key == name:
            yield value
        elif isinstance(value, (dict, list)):
            yield from figures(value, name)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, and the benchmark would run")
def test_without_a_gpu_nothing_is_written(tmp_path: Path) -> None:
    result = benchmark(str(tmp_path))
    assert result.returncode == 2
    assert result.stderr == (
        "error: torch finds no CUDA GPU on this machine, so that nothing was measured; run it on one that has\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_rehearsal_checks_every_kernel_and_has_no_times(tmp_path: Path) -> None:
    gxx = shutil.which("g++")
    if gxx is None:
        pytest.skip("g++ is not in PATH; with it the benchmark is rehearsed on the CPU")
    library = tmp_path / "emulated.so"
    emulation = ROOT / "tests" / "deploy" / "plugin"
    command = [gxx, "-std=c++17", "-O1", "-Wno-unknown-pragmas", "-shared", "-fPIC", f"-I{emulation}"]
    command += ['-DLSTFE_CUDA_ON_HOST="cuda_on_host.h"', "-ffp-contract=off", "-o", str(library)]
    kernels = [part for source in KERNEL_SOURCES for part in ("-x", "c++", source)]
    compile_sources([*command, *HOST_SOURCES, *kernels])
    result = benchmark(str(tmp_path), "--rehearse", str(library))
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "rehearsal-plugin.json").read_text())
    assert report["machine"] == "no GPU: a rehearsal"
    assert set(figures(report, "us per pair")) == {None}
    assert set(figures(report, "met")) == {None}
    assert set(report["ceilings"].values()) == {None}
    assert {row["kernel"] for row in report["random_cases"]} == {"simple", "64x64", "128x128", "128x256"}
    assert [row["cases"] for row in report["proposals"]] == [2, 1]
    assert all(row["boxes"] > 0 and row["different"] == 0 for row in report["proposals"])
    assert [row["cases"] for row in report["suppression"]] == [2, 1]
    assert all(row["kept"] > 0 and row["different"] == 0 for row in report["suppression"])
    assert (len(report["proposal_times"]), len(report["suppression_times"])) == (3, 2)
    assert set(figures(report, "us launched")) | set(figures(report, "us replayed")) == {None}
    by_what = {row["what"]: row["relative error"] for row in report["errors"]}
    assert by_what["ours float32"] < 1e-6
    assert by_what["ours half, 1x1 convolution + sampled sum"] < 1e-3
