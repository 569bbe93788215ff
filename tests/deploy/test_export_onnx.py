from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from deploy.example_inputs import random_inputs
from deploy.export_onnx import DecodeGraph, ProposalsGraph, graph_module
from deploy.graphs import graphs_of
from deploy.onnx_backend import OnnxGraphs
from lstfe.config import Config
from lstfe.model.detector import HeadOutput, LSTFENet
from lstfe.types import Proposals

BuildMethod = Callable[..., tuple[LSTFENet, Config]]


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("method", ["lstfe", "faster_rcnn"])
def test_every_graph_gives_what_pytorch_gives_at_any_image_size(
    export: Callable[..., Any], method: str
) -> None:
    exported = export(method)
    graphs = OnnxGraphs(exported.directory, exported.config)
    for graph in graphs_of(exported.config)[1:]:  # preprocess has tests of its own
        module = graph_module(graph.name, exported.model, exported.config)
        for image_size in ((64, 96), (96, 64), (32, 160)):
            inputs = random_inputs(graph.name, exported.model, exported.config, image_size=image_size, seed=1)
            with torch.no_grad():
                expected = as_tuple(module(*inputs))
            found = graphs.run(graph.name, *(value.numpy() for value in inputs))
            for name, one, other in zip(graph.outputs, expected, found, strict=True):
                assert one.shape == other.shape, (graph.name, name)
                difference = np.abs(one.double().numpy() - other).max()
                assert difference <= 2e-5 * one.double().abs().max(), (graph.name, name, image_size)


def test_the_proposals_graph_chooses_what_the_proposal_network_chooses(build_method: BuildMethod) -> None:
    model, config = build_method()
    top_k = config.model.proposals.current_top_k
    for image_size in ((64, 96), (32, 32)):  # the smaller one has fewer anchors than pre_nms_top_k
        objectness, box_deltas, size = random_inputs("proposals", model, config, image_size=image_size)
        expected = model.proposal_network.propose(objectness, box_deltas, [image_size], top_k=top_k)
        with torch.no_grad():
            boxes, valid = ProposalsGraph(model, top_k)(objectness, box_deltas, size)
        assert expected.valid.any()
        assert torch.equal(valid, expected.valid)
        torch.testing.assert_close(boxes, expected.boxes)


def test_the_proposals_graph_marks_what_it_could_not_find_as_padding(build_method: BuildMethod) -> None:
    model, config = build_method()
    objectness, box_deltas, size = random_inputs("proposals", model, config, image_size=(32, 32))
    boxes, valid = ProposalsGraph(model, 500)(objectness, box_deltas, size)
    assert 0 < valid.sum() < 500
    assert (boxes[~valid] == 0).all()


def test_the_decode_graph_gives_no_detections_for_padding_alone(build_method: BuildMethod) -> None:
    model, config = build_method()
    logits, deltas, boxes, valid, *sizes = random_inputs("decode", model, config)
    _, scores, _ = DecodeGraph(model)(logits, deltas, boxes, torch.zeros_like(valid), *sizes)
    assert (scores == 0).all()


def test_the_decode_graph_keeps_what_the_detection_head_keeps(build_method: BuildMethod) -> None:
    model, config = build_method()
    for seed in range(5):
        logits, deltas, boxes, valid, image_size, original_size = random_inputs(
            "decode", model, config, seed=seed
        )
        [expected] = model.postprocess(
            HeadOutput(Proposals(boxes, valid), logits, deltas),
            [tuple(image_size.tolist())],
            [tuple(original_size.tolist())],
        )
        found_boxes, scores, labels = DecodeGraph(model)(
            logits, deltas, boxes, valid, image_size, original_size
        )
        found = scores > 0
        assert len(expected) > 0
        np.testing.assert_allclose(found_boxes[found], expected.boxes, atol=1e-4)
        np.testing.assert_allclose(scores[found], expected.scores, atol=1e-6)
        np.testing.assert_array_equal(labels[found], expected.labels)


def test_faster_rcnn_has_no_alignment_and_no_references(export: Callable[..., Any]) -> None:
    exported = export("faster_rcnn")
    names = {path.stem for path in exported.directory.iterdir()}
    assert names == {"preprocess", "backbone", "proposals", "roi", "relation", "decode"}
    relation = onnx.load(exported.directory / "relation.onnx")
    assert [value.name for value in relation.graph.input] == ["proposal_features", "boxes", "valid"]


def test_graphs_have_the_configured_opset_and_tell_nothing_of_this_machine(
    export: Callable[..., Any],
) -> None:
    exported = export("lstfe")
    for path in exported.directory.glob("*.onnx"):
        content = path.read_bytes()
        opsets = {entry.domain: entry.version for entry in onnx.load(path).opset_import}
        assert opsets[""] == exported.config.export.opset
        assert b"site-packages" not in content
        assert str(Path(__file__).parents[2]).encode() not in content


def test_equal_weights_give_equal_files(export: Callable[..., Any], tmp_path: Path) -> None:
    from deploy.export_onnx import export_graph

    exported = export("lstfe")
    export_graph("decode", exported.model, exported.config, tmp_path)
    assert (tmp_path / "decode.onnx").read_bytes() == (exported.directory / "decode.onnx").read_bytes()
