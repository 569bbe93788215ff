from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import deploy.tensorrt_graphs.parity
from deploy.bundle import Bundle, open_bundle
from deploy.graphs import Quantized
from deploy.parity import ParityError
from deploy.tensorrt_graphs.expanded import ExpandedGraphs
from deploy.tensorrt_graphs.family import graph_names, proposals_graph
from deploy.tensorrt_graphs.parity import ap_faults, ap_table, check_family
from deploy.tensorrt_graphs.quantization import quantize_graphs
from lstfe.data.faults import AnnotationError

from ..conftest import NUM_PREPARED_FRAMES


@pytest.fixture(scope="module")
def bundle(bundle_dir: Path) -> Bundle:
    opened = open_bundle(bundle_dir)
    export = replace(
        opened.config.export, parity_frames=NUM_PREPARED_FRAMES, calibration_frames=NUM_PREPARED_FRAMES
    )
    return replace(opened, config=replace(opened.config, export=export))


@pytest.fixture
def still(
    export: Callable[..., Any], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> tuple[Bundle, dict[str, onnx.ModelProto]]:
    """A bundle without alignment, so that nothing has to be traced, and its graphs."""
    exported = export("faster_rcnn")
    config = replace(exported.config, export=bundle.config.export)
    names = [name for name in graph_names(config) if name != "proposals"]
    models = {name: onnx.load(exported.directory / f"{name}.onnx") for name in names}
    models["proposals"] = proposals_graph(config, 20)
    monkeypatch.setattr(deploy.tensorrt_graphs.parity, "load_network", lambda _: exported.model)
    return replace(bundle, directory=exported.directory, config=config), models


def test_a_family_that_is_exact_costs_no_ap_and_says_so(
    still: tuple[Bundle, dict[str, onnx.ModelProto]], prepared: Path, tmp_path: Path
) -> None:
    opened, models = still
    report = check_family(opened, models, precision="fp32", prepared_dir=prepared, report_dir=tmp_path)
    assert json.loads((tmp_path / "parity.json").read_text()) == report
    assert report["split"] == "val"
    assert set(report["ap"]) == {"coco.AP", "voc07.AP50"}
    assert all(figures["drop"] == pytest.approx(0, abs=1e-3) for figures in report["ap"].values())
    assert report["detections"]["num_unmatched"] == 0
    assert set(report["graphs"]["backbone"]) == {"frames"}


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_quantized_graphs_run_and_their_differences_are_reported(
    still: tuple[Bundle, dict[str, onnx.ModelProto]], prepared: Path, precision: Quantized
) -> None:
    opened, models = still
    quantized = quantize_graphs(models, opened, prepared, precision)
    marked = {
        name
        for name, model in quantized.items()
        if any(n.op_type == "QuantizeLinear" for n in model.graph.node)
    }
    assert marked == {"backbone", "roi"}
    ranges = [
        float(numpy_helper.to_array(value))
        for value in quantized["backbone"].graph.initializer
        if value.name.endswith("_scale") and not value.dims
    ]
    assert ranges
    assert min(ranges) > 0
    lenient = replace(
        opened, config=replace(opened.config, export=replace(opened.config.export, max_ap_drop=1.0))
    )
    report = check_family(lenient, quantized, precision=precision, prepared_dir=prepared)
    assert 1e-4 < report["graphs"]["backbone"]["frames"]["relative"] < 0.5


def test_a_data_set_of_other_categories_is_refused(bundle: Bundle, tiny_prepared: Path) -> None:
    with pytest.raises(
        AnnotationError, match=r"val\.json: the split lacks the detector's bird; give the data set"
    ):
        check_family(bundle, {}, precision="fp32", prepared_dir=tiny_prepared)


def test_undefined_figures_are_no_part_of_the_table() -> None:
    scores = {
        side: {"coco": {"AP": None}, "voc07": {"AP50": value}}
        for side, value in (("torch", 0.5), ("int8", 0.48))
    }
    assert ap_table({"scores": scores}, "int8") == {
        "voc07.AP50": {"torch": 0.5, "int8": 0.48, "drop": pytest.approx(0.02)}
    }


def test_more_ap_than_allowed_is_not_given_away(
    still: tuple[Bundle, dict[str, onnx.ModelProto]],
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened, models = still
    table = {"coco.AP": {"torch": 0.5, "int8": 0.45, "drop": 0.05}}
    assert list(ap_faults({"max_ap_drop": 0.05, "ap": table})) == []
    report = {"max_ap_drop": 0.01, "ap": table}
    monkeypatch.setattr(deploy.tensorrt_graphs.parity, "ap_report", lambda *_, **__: report)
    with pytest.raises(ParityError, match=r"int8 graphs: coco.AP is 0.4500 and 0.5000 with") as caught:
        check_family(opened, models, precision="int8", prepared_dir=prepared, report_dir=tmp_path)
    assert "export.max_ap_drop allows 0.01 less; use fp16" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "parity.json").is_file(), "the report is written before"


def test_a_gain_is_no_drop() -> None:
    table = {"coco.AP": {"torch": 0.5, "fp16": 0.6, "drop": -0.1}}
    assert list(ap_faults({"max_ap_drop": 0.0, "ap": table})) == []


def test_graphs_take_inputs_of_the_plain_form_s_types(bundle: Bundle) -> None:
    graphs = ExpandedGraphs({"proposals": proposals_graph(bundle.config, 20)}, bundle.config)
    anchors = 6
    maps = np.zeros((1, anchors, 4, 5)), np.zeros((1, 4 * anchors, 4, 5))
    boxes, valid = graphs.run("proposals", *maps, np.array([32, 40], np.int64))
    assert boxes.dtype == np.float32
    assert valid.any()
