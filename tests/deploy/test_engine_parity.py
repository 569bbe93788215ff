from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.bundle import open_bundle
from deploy.engine_parity import _faults, parity_rows, verify_engines
from lstfe.data.coco_video import (
    AnnotationEntry,
    CategoryEntry,
    ImageEntry,
    VideoAnnotations,
    VideoEntry,
    save_annotations,
)
from lstfe.data.frames import write_frames

NUM_FRAMES = 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, make_frames: Callable[..., Any]) -> Path:
    """A prepared data set of one short video with an object in every frame."""
    directory = tmp_path_factory.mktemp("prepared")
    for folder in ("annotations", "frames"):
        (directory / folder).mkdir()
    frames = range(NUM_FRAMES)
    annotations = VideoAnnotations(
        videos=[VideoEntry(1, "clip", "clip.mp4", 96, 64, NUM_FRAMES)],
        images=[ImageEntry(index + 1, 1, index, 96, 64) for index in frames],
        annotations=[
            AnnotationEntry(index + 1, index + 1, 1, 1, (10.0, 10.0, 20.0, 12.0), 240.0) for index in frames
        ],
        categories=[CategoryEntry(1, "drone"), CategoryEntry(2, "bird")],
    )
    save_annotations(annotations, directory / "annotations" / "test.json")
    write_frames(directory / "frames" / "clip.zip", enumerate(make_frames(NUM_FRAMES)), 95)
    return directory


def test_the_bundle_s_own_graphs_are_compared_without_a_gpu(bundle_dir: Path, prepared: Path) -> None:
    found = verify_engines(open_bundle(bundle_dir), prepared, backend="onnx", num_frames=NUM_FRAMES)
    assert found.faults == ()
    assert found.report["num_frames"] == NUM_FRAMES
    assert json.loads(found.path.read_text())["precision"] == "fp32"
    rows = {name: cells for name, *cells in parity_rows(found.report)}
    assert set(rows) == {"preprocess", "backbone", "align", "proposals", "roi", "relation", "decode"}
    assert float(rows["relation"][1]) < 2e-5
    assert found.path == bundle_dir / "engines" / "onnx" / "parity.json"
    open_bundle(bundle_dir)  # its own files are as they were


@pytest.mark.slow
def test_the_graphs_for_half_precision_are_judged_by_their_ap(bundle_dir: Path, prepared: Path) -> None:
    found = verify_engines(
        open_bundle(bundle_dir), prepared, backend="onnx", precision="fp16", num_frames=NUM_FRAMES
    )
    assert found.path.parent.name == "onnx-fp16"
    assert found.report["graphs"]["backbone"]["frames"]["relative"] > 1e-5, "it was half"
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
