from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

import deploy.tensorrt_graphs.family
from deploy.bundle import Bundle, open_bundle
from deploy.example_inputs import random_inputs
from deploy.export_onnx import AlignGraph, build_graph, graph_module
from deploy.graphs import HALF_VALUES, GraphSizes, graphs_of, role_of
from deploy.network import load_network
from deploy.onnx_backend import OnnxGraphs
from deploy.runtime import StreamRuntime
from deploy.tensorrt_graphs.expanded import ExpandedGraphs, PlainView
from deploy.tensorrt_graphs.family import build_tensorrt_graphs, write_tensorrt_graphs
from deploy.tensorrt_graphs.half_precision import share_of_half
from deploy.tensorrt_graphs.opsets import OpsetError, opset_of, require_opset
from deploy.tensorrt_graphs.types import element_types
from lstfe.config import Config
from lstfe.model.detector import LSTFENet
from lstfe.model.methods import resolve_method
from lstfe.types import FrameDetections

Family = dict[str, onnx.ModelProto]
INSIDE_THE_MAP = {"proposals", "roi", "decode", "relation", "backbone", "support", "align"}


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> Bundle:
    return open_bundle(bundle_dir)


@pytest.fixture(scope="session")
def write_family(
    bundle: Bundle, build_commuted: Callable[..., onnx.ModelProto], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Family]:
    """Return a writer of families, each written once."""

    @functools.cache
    def write(precision: Any, opset: int) -> Family:
        folder = tmp_path_factory.mktemp(f"{precision}-{opset}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deploy.tensorrt_graphs.family, "build_graph", build_commuted)
            paths = write_tensorrt_graphs(bundle, folder, precision=precision, opset=opset)
        return {path.stem: onnx.load(path) for path in paths}

    return write


def differences(family: Family, bundle: Bundle, image_size: tuple[int, int]) -> dict[str, float]:
    """Return the largest relative difference from PyTorch of each output."""
    model, config = load_network(bundle), bundle.config
    graphs = ExpandedGraphs(family, config)
    found_differences = {}
    for graph in graphs_of(config, "commuted"):
        if graph.name not in family:
            continue
        module = graph_module(graph.name, model, config, "commuted")
        inputs = random_inputs(graph.name, model, config, "commuted", image_size=image_size, seed=1)
        with torch.no_grad():
            outputs = module(*inputs)
        expected = outputs if isinstance(outputs, tuple) else (outputs,)
        found = graphs.run(graph.name, *(value.numpy() for value in inputs))
        for name, one, other in zip(graph.outputs, expected, found, strict=True):
            assert one.shape == other.shape, (graph.name, name)
            largest = float(one.double().abs().max())
            difference = np.abs(one.double().numpy() - other.astype(np.float64)).max()
            found_differences[f"{graph.name}.{name}"] = difference / max(largest, 1e-9)
    return found_differences


def detect(graphs: Any, config: Config, frames: Iterator[np.ndarray]) -> list[FrameDetections]:
    stream = StreamRuntime(graphs, config, num_frames=9)
    shown = list(frames)
    stream.prime({place: shown[place] for place in stream.pool or ()})
    found = [one for frame in shown for one in stream.push(frame)]
    return [*found, *stream.finish()]


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("image_size", [(64, 96), (32, 160)])
def test_every_graph_of_the_family_gives_what_pytorch_gives(
    write_family: Callable[..., Family], bundle: Bundle, opset: int, image_size: tuple[int, int]
) -> None:
    family = write_family("fp32", opset)
    assert set(family) == INSIDE_THE_MAP
    found = differences(family, bundle, image_size)
    assert max(found.values()) <= 2e-5, found


def test_a_stream_through_the_family_keeps_its_detections(
    write_family: Callable[..., Family], bundle: Bundle, make_frames: Callable[..., Any]
) -> None:
    plain = OnnxGraphs(bundle.directory, bundle.config)
    view = PlainView(ExpandedGraphs(write_family("fp32", 20), bundle.config), plain, bundle.config)
    expected = detect(plain, bundle.config, make_frames(9))
    found = detect(view, bundle.config, make_frames(9))
    assert sum(len(one.detections) for one in expected) > 0
    for one, other in zip(expected, found, strict=True):
        assert one.frame_index == other.frame_index
        np.testing.assert_array_equal(one.detections.labels, other.detections.labels)
        np.testing.assert_allclose(one.detections.boxes, other.detections.boxes, atol=2e-3)
        np.testing.assert_allclose(one.detections.scores, other.detections.scores, atol=2e-5)


@pytest.mark.parametrize("opset", [17, 20])
def test_half_precision_stays_near_and_goes_from_graph_to_graph(
    write_family: Callable[..., Family], bundle: Bundle, opset: int
) -> None:
    family = write_family("fp16", opset)
    found = differences(family, bundle, (64, 96))
    assert max(found.values()) <= 5e-3, found
    for name, model in family.items():
        for value in (*model.graph.input, *model.graph.output):
            in_half = value.type.tensor_type.elem_type == TensorProto.FLOAT16
            assert in_half == (role_of(value.name) in HALF_VALUES), (name, value.name)
    assert share_of_half(family["backbone"]) > 0.85
    assert share_of_half(family["relation"]) > 0.8


def test_what_detections_hang_on_never_passes_through_half(write_family: Callable[..., Family]) -> None:
    in_float = {
        "Softmax",
        "InstanceNormalization",
        "Exp",
        "Log",
        "Sin",
        "Cos",
        "Div",
        "RoiAlign",
        "ReduceMean",
    }
    for name, model in write_family("fp16", 20).items():
        types = element_types(model)
        for node in model.graph.node:
            data = [types[value] for value in node.input if value]
            if node.op_type in in_float | {"TopK", "LstfeProposals", "LstfeSuppression"}:
                assert TensorProto.FLOAT16 not in data, (name, node.op_type)
            if node.op_type == "LstfeSampledSum":
                assert data == [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT]


def test_no_graph_has_a_size_that_depends_on_data(write_family: Callable[..., Family]) -> None:
    family = write_family("fp32", 17)
    found = {node.op_type for model in family.values() for node in model.graph.node}
    assert not found & {"NonMaxSuppression", "NonZero", "Unique", "Compress"}
    assert "LstfeSuppression" in {node.op_type for node in family["decode"].graph.node}


def test_the_family_of_an_old_tensorrt_is_read_by_it_and_the_standard_graphs_are_refused(
    write_family: Callable[..., Family], bundle: Bundle
) -> None:
    for model in write_family("fp32", 17).values():
        assert opset_of(model) == 17
        require_opset(model, "8.5.3")
    for model in write_family("fp16", 20).values():
        require_opset(model, "11.1")
    with pytest.raises(OpsetError, match="opset 20"):
        require_opset(onnx.load(bundle.directory / "backbone.onnx"), "8.6.1")


def test_int64_does_not_cross_the_family_s_borders(write_family: Callable[..., Family]) -> None:
    for model in write_family("fp32", 20).values():
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.elem_type != TensorProto.INT64, value.name


def test_inputs_and_outputs_are_those_of_the_contract(
    write_family: Callable[..., Family], bundle: Bundle
) -> None:
    family, lengths = write_family("fp16", 20), GraphSizes.of(bundle.config).lengths
    for graph in graphs_of(bundle.config, "commuted")[1:]:
        model = family[graph.name]
        assert tuple(value.name for value in model.graph.input) == graph.inputs
        assert tuple(value.name for value in model.graph.output) == graph.outputs
        for value in model.graph.input:
            if value.name in lengths:
                assert value.type.tensor_type.shape.dim[1].dim_value == lengths[value.name]


@pytest.mark.parametrize("family_of", ["plain", "commuted"])
def test_the_concatenation_of_the_pixel_aggregation_is_never_made(
    write_family: Callable[..., Family], bundle: Bundle, family_of: str
) -> None:
    """SPEC: f_multi of four times the channels folds into the weights; no value of that many channels exists."""
    align = (
        onnx.load(bundle.directory / "align.onnx")
        if family_of == "plain"
        else write_family("fp32", 20)["align"]
    )
    channels = bundle.config.model.backbone.feature_channels
    typed = onnx.shape_inference.infer_shapes(align, data_prop=True)
    shapes = {value.name: value.type.tensor_type.shape.dim for value in typed.graph.value_info}
    made = [name for node in align.graph.node if node.op_type == "Concat" for name in node.output]
    maps = [name for name in made if len(shapes.get(name, ())) >= 4]
    assert maps, "no concatenation was looked at"
    for name in maps:
        assert shapes[name][-3].dim_value == channels, name
    if family_of == "commuted":  # and its weights are constants, which TensorRT before 9 insists on
        constants = {value.name for value in align.graph.initializer}
        weights = [node.input[1] for node in align.graph.node if node.op_type == "Conv"]
        assert weights
        assert set(weights) <= constants


def test_an_opset_that_is_not_made_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OpsetError, match="opset 18 is not made for TensorRT, expected one of 17, 20"):
        write_tensorrt_graphs(bundle, tmp_path / "family", precision="fp32", opset=18)
    with pytest.raises(OpsetError, match="fp8 is not known to opset 17, which is for TensorRT below 10"):
        write_tensorrt_graphs(bundle, tmp_path / "family", precision="fp8", opset=17)
    assert not (tmp_path / "family").exists()


def test_a_method_without_alignment_needs_no_network(
    export: Callable[..., Any], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = export("faster_rcnn")
    still = replace(bundle, directory=exported.directory, config=exported.config)
    monkeypatch.setattr(deploy.tensorrt_graphs.family, "load_network", lambda _: pytest.fail("loaded"))
    assert set(build_tensorrt_graphs(still, precision="fp16")) == INSIDE_THE_MAP - {"support", "align"}


@pytest.fixture(scope="session")
def cascade(tiny: Callable[..., Any], build_model: Callable[..., LSTFENet]) -> tuple[LSTFENet, Config]:
    config = resolve_method(Config(model=tiny(alignment={"num_blocks": 2})))
    return build_model(config.model).eval(), config


def test_both_forms_of_a_cascade_are_the_same_network(cascade: tuple[LSTFENet, Config]) -> None:
    model, config = cascade
    plain = random_inputs("align", model, config, "plain")
    commuted = random_inputs("align", model, config, "commuted")
    assert len(commuted) == 4
    torch.testing.assert_close(commuted[1], plain[1])
    with torch.no_grad():
        expected = AlignGraph(model)(*plain)
        found = graph_module("align", model, config, "commuted")(*commuted)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_blocks_of_a_cascade_become_the_plugin_s_convolution(cascade: tuple[LSTFENet, Config]) -> None:
    model, config = cascade
    align = build_graph("align", model, config, "commuted")
    deploy.tensorrt_graphs.family.use_deform_conv_plugin(align)
    own = [node.op_type for node in align.graph.node if node.domain == "lstfe"]
    assert own == ["LstfeDeformConv2d", "LstfeSampledSum"]
    inputs = random_inputs("align", model, config, "commuted", image_size=(96, 64), seed=2)
    with torch.no_grad():
        expected = graph_module("align", model, config, "commuted")(*inputs)
    found = ExpandedGraphs({"align": align}, config).run("align", *(value.numpy() for value in inputs))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, atol=2e-5 * float(one.abs().max()))
