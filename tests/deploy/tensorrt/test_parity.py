from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import deploy.tensorrt.parity
import deploy.tensorrt_graphs.family
from deploy.bundle import Bundle, open_bundle
from deploy.graphs import Precision
from deploy.tensorrt.parity import _faults, parity_rows, verify_engines
from lstfe.data.faults import AnnotationError

from ..conftest import NUM_PREPARED_FRAMES


@pytest.fixture
def bundle(bundle_dir: Path, tmp_path: Path) -> Bundle:
    """A bundle of the test's own: reports are written into it."""
    return open_bundle(shutil.copytree(bundle_dir, tmp_path / "bundle"))


def test_the_bundle_s_own_graphs_are_compared_without_a_gpu(bundle: Bundle, prepared: Path) -> None:
    found = verify_engines(bundle, prepared, backend="onnx", num_frames=NUM_PREPARED_FRAMES)
    assert found.faults == ()
    assert found.report["num_frames"] == NUM_PREPARED_FRAMES
    assert json.loads(found.path.read_text())["precision"] == "fp32"
    rows = {name: cells for name, *cells in parity_rows(found.report)}
    assert set(rows) == {"preprocess", "backbone", "align", "proposals", "roi", "relation", "decode"}
    assert float(rows["relation"][1]) < 2e-5
    assert found.path == bundle.directory / "engines" / "onnx" / "parity.json"
    open_bundle(bundle.directory)  # its own files are as they were


@pytest.mark.parametrize("precision", [None, "int8"])
def test_a_data_set_of_other_categories_is_refused_before_anything_is_built(
    bundle: Bundle, tiny_prepared: Path, precision: Precision | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy.tensorrt.parity, "build_tensorrt_graphs", None)
    with pytest.raises(
        AnnotationError,
        match=r"^\S+train\.json: the split lacks the detector's bird; give the data set [^\n]+$",
    ):
        verify_engines(bundle, tiny_prepared, backend="onnx", precision=precision, split="train")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_graphs_for_lower_precisions_are_judged_by_their_ap(
    bundle: Bundle,
    prepared: Path,
    build_commuted: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    precision: Precision,
) -> None:
    monkeypatch.setattr(deploy.tensorrt_graphs.family, "build_graph", build_commuted)
    found = verify_engines(
        bundle, prepared, backend="onnx", precision=precision, num_frames=NUM_PREPARED_FRAMES
    )
    assert found.path.parent.name == f"onnx-{precision}"
    assert found.report["graphs"]["backbone"]["frames"]["relative"] > 1e-5, "it was float32"
    assert not [fault for fault in found.faults if fault.startswith("graph")]


def test_what_is_past_its_limit_is_said_a_line_each() -> None:
    report = {
        "backend": "tensorrt",
        "max_difference": 1e-3,
        "max_ap_drop": 0.01,
        "graphs": {"roi": {"frames": {"relative": 0.02}}, "align": {"frames": {"relative": 1e-4}}},
        "ap": {"coco.AP": {"torch": 0.5, "tensorrt": 0.45, "drop": 0.05}},
    }
    exact, rounded = (list(_faults(report, is_exact=is_exact)) for is_exact in (True, False))
    assert exact[0].startswith("graph roi differs from PyTorch by 2.0e-02 (relative), more than")
    assert exact[1:] == rounded
    assert rounded == ["coco.AP is 0.4500 and 0.5000 with PyTorch, export.max_ap_drop allows 0.01 less"]
