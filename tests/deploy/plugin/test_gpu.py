"""The kernels on a real GPU, as nvcc compiles them, against torchvision in float64 and against the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deploy.plugin.library import build_library, find_nvcc, open_library


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU; with one the kernels run as nvcc compiles them"
)
def test_every_kernel_is_right_on_this_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_nvcc() is None:
        pytest.skip("no nvcc on this machine; with it the kernels are built for its GPU")
    monkeypatch.syspath_prepend(Path(__file__).parents[3])  # `benchmarks` is not installed
    from benchmarks.gpu import Ceilings, no_time
    from benchmarks.plugin import REHEARSAL, Bench, check_random_cases, error_table
    from benchmarks.proposals import check_proposals
    from benchmarks.suppression import check_suppression, frames_of

    major, minor = torch.cuda.get_device_capability()
    build_library(tmp_path / "kernels.so", [10 * major + minor])
    sizes = replace(REHEARSAL, maps=((38, 63),), channels=(256,), random_cases=25)
    library = open_library(tmp_path / "kernels.so")
    bench = Bench(library, torch.device("cuda"), no_time, Ceilings(None, None), sizes)
    random_cases = check_random_cases(bench)  # raises where one is wrong
    assert len(random_cases) == (10 if major >= 8 else 6)  # Turing has two of the six tiles
    assert len(error_table(bench)) == 9
    boxes = [row["boxes"] for row in check_proposals(bench.boxes(), sizes.maps, (6000, 300), 25)]
    assert boxes[1] == 300
    kept = [row["kept"] for row in check_suppression(bench.boxes(), frames_of(300, (30,)), 25)]
    assert kept[1] == 30 * 100
