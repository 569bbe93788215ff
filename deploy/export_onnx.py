"""Write the graphs of `deploy.graphs` as ONNX, one file each: standard ONNX in the form `plain`.

Every graph but `preprocess` is a thin module around the model's own parts, exported by `torch.onnx.export`.
Where the model's sizes depend on data (suppression, dropped boxes), these modules have fixed sizes and masks.

Shapes: see deploy/graphs.py; K proposals of the proposals graph, J object classes, M detections at most.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim

from deploy.commuted_alignment import CommutedAlignGraph, SupportGraph
from deploy.example_inputs import random_inputs
from deploy.graphs import Form, Graph, GraphSizes, graphs_of
from deploy.preprocess import preprocess_model
from deploy.suppression import suppress, suppress_in_onnx
from deploy.tensorrt_graphs.operators import declare_domain, sampled_sum_in_onnx
from lstfe import boxes as box_geometry
from lstfe.config import Config
from lstfe.model.detector import LSTFENet
from lstfe.model.proposals import LEAST_SIDE_PX, flatten_maps
from lstfe.model.relation import RelatedProposals

# Below every score: the mark of a box that takes no part.
_LOWEST = torch.finfo(torch.float32).min


class BackboneGraph(nn.Module):
    """image -> features and what is read off them."""

    def __init__(self, model: LSTFENet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(1, 3, H, W) -> (1, C, h, w), roi_map, objectness, box_deltas, (1, E)."""
        features = self.model.extract(image)
        maps = self.model.describe(features)
        return features, maps.roi_map, maps.objectness, maps.box_deltas, maps.descriptor


class AlignGraph(nn.Module):
    """Features of the current and of the aligned frames -> what is read off the enhanced features."""

    def __init__(self, model: LSTFENet) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, short_term_features: Tensor) -> tuple[Tensor, ...]:
        """(1, C, h, w), (1, S, C, h, w) -> roi_map, objectness, box_deltas."""
        assert self.model.alignment is not None
        assert self.model.pixel_aggregation is not None
        # The plain operator, not the commuted form: ONNX has DeformConv, and runtimes have kernels for it.
        aligned = self.model.alignment.align_directly(features, short_term_features)
        maps = self.model.describe(self.model.pixel_aggregation(features, aligned))
        return maps.roi_map, maps.objectness, maps.box_deltas


class ProposalsGraph(nn.Module):
    """`ProposalNetwork.propose` for one frame, with masks in place of dropped boxes."""

    def __init__(self, model: LSTFENet, num_proposals: int) -> None:
        super().__init__()
        self.network = model.proposal_network
        self.num_proposals = num_proposals

    def forward(self, objectness: Tensor, box_deltas: Tensor, image_size: Tensor) -> tuple[Tensor, Tensor]:
        """(1, A, h, w), (1, 4A, h, w), (2,) -> boxes (1, K, 4) best first, valid (1, K)."""
        config, number = self.network.config, self.network.config.pre_nms_top_k
        logits, deltas = (part[0] for part in flatten_maps(objectness, box_deltas))
        anchors = self.network.anchors((objectness.shape[2], objectness.shape[3]))
        # A map may have fewer anchors than `number`; the added ones have no score and an empty box.
        logits = torch.cat((logits, logits.new_full((number,), _LOWEST)))
        deltas, anchors = (torch.cat((part, part.new_zeros((number, 4)))) for part in (deltas, anchors))
        scores, best = logits.topk(number)  # ties go to the earlier anchor, as in a stable sort
        boxes = box_geometry.decode(deltas[best], anchors[best], (1.0, 1.0, 1.0, 1.0))
        boxes = _clip(boxes, image_size)
        large = ((boxes[:, 2:] - boxes[:, :2]) > max(config.min_size_px, LEAST_SIDE_PX)).all(dim=1)
        scores = torch.where(large, scores, _LOWEST)
        keep = suppress(boxes[None], scores[None], config.nms_iou, _LOWEST, self.num_proposals)[0]
        return self._best(boxes, torch.where(keep, scores, _LOWEST))

    def _best(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        missing = max(0, self.num_proposals - len(scores))
        boxes = torch.cat((boxes, boxes.new_zeros((missing, 4))))
        kept_scores, kept = torch.cat((scores, scores.new_full((missing,), _LOWEST))).topk(self.num_proposals)
        valid = kept_scores > _LOWEST
        return (boxes[kept] * valid[:, None])[None], valid[None]


class RoiGraph(nn.Module):
    """RoIAlign and the first fully connected layer."""

    def __init__(self, model: LSTFENet) -> None:
        super().__init__()
        self.model = model

    def forward(self, roi_map: Tensor, boxes: Tensor) -> Tensor:
        """(1, C', h, w), (1, any, 4) pixels -> (1, any, D)."""
        return self.model.embed(roi_map, boxes)


class RelationGraph(nn.Module):
    """Long short-term feature aggregation and the detection head."""

    def __init__(self, model: LSTFENet, sizes: GraphSizes) -> None:
        super().__init__()
        self.model = model
        self.sizes = sizes

    def forward(self, *proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Features, boxes, valid of the current, short-term and long-term proposals -> logits, box deltas."""
        roles = iter(RelatedProposals(*proposals[i : i + 3]) for i in range(0, len(proposals), 3))
        current = next(roles)
        nothing = RelatedProposals(current.features[:, :0], current.boxes[:, :0], current.valid[:, :0])
        short_term = next(roles) if self.sizes.num_relation else nothing
        long_term = next(roles) if self.sizes.num_long_term else nothing
        related = self.model.relate(current, short_term, long_term, self.sizes.num_relation)
        class_logits, box_deltas = self.model.head(related)
        return class_logits, box_deltas


class DecodeGraph(nn.Module):
    """`DetectionHead.postprocess` for one frame, with a fixed number of detections."""

    def __init__(self, model: LSTFENet) -> None:
        super().__init__()
        self.head = model.head

    def forward(
        self,
        class_logits: Tensor,
        class_box_deltas: Tensor,
        boxes: Tensor,
        valid: Tensor,
        image_size: Tensor,
        original_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(1, N, 1 + J), (1, N, 4 + 4J), (1, N, 4), (1, N), (2,), (2,) -> (M, 4), (M,) 0 = none, (M,)."""
        config, num_objects = self.head.config, self.head.num_classes - 1
        scores = class_logits[0].softmax(dim=1)[:, 1:]  # (N, J)
        deltas = class_box_deltas[0].reshape(-1, num_objects + 1, 4)[:, 1:]
        boxes = _clip(
            box_geometry.decode(deltas, boxes[0][:, None], config.box_weights), image_size
        )  # (N, J, 4)
        scores = torch.where(valid[0][:, None] & (box_geometry.area(boxes) > 0), scores, 0.0)
        keep = suppress(
            boxes.transpose(0, 1),
            scores.transpose(0, 1),
            config.nms_iou,
            config.score_threshold,
            config.detections_per_frame,
        )
        scores = torch.where(
            keep.transpose(0, 1), scores, 0.0
        ).flatten()  # (N * J), the proposal's number outside
        missing = max(0, config.detections_per_frame - len(scores))
        scores = torch.cat((scores, scores.new_zeros(missing)))
        boxes = torch.cat((boxes.flatten(0, 1), boxes.new_zeros((missing, 4))))
        scores, best = scores.topk(config.detections_per_frame)
        scale = (original_size.float() / image_size.float()).flip(0).repeat(2)
        return boxes[best] * scale, scores, best % num_objects + 1


def export_graphs(model: LSTFENet, config: Config, destination: Path) -> list[Path]:
    """Write one ONNX file per graph of `config` (its method resolved) into `destination`; return their paths.

    The model is left in the mode it came in. Equal weights give equal files: they hold no paths and no dates.
    """
    destination.mkdir(parents=True, exist_ok=True)
    was_training = model.training
    model.eval()
    try:
        return [export_graph(graph.name, model, config, destination) for graph in graphs_of(config)]
    finally:
        model.train(was_training)


def export_graph(name: str, model: LSTFENet, config: Config, destination: Path) -> Path:
    """Write `<name>.onnx` into `destination`; the model is in evaluation mode."""
    path = destination / f"{name}.onnx"
    onnx.save(build_graph(name, model, config), path)
    return path


def build_graph(name: str, model: LSTFENet, config: Config, form: Form = "plain") -> onnx.ModelProto:
    """Build one graph of a form; the model is in evaluation mode.

    Graphs of the form `commuted` hold the plugin's sampled sum where the plain ones have a deformable convolution.
    """
    if name == "preprocess":
        return preprocess_model(config.model, config.export.opset)
    graph = next(graph for graph in graphs_of(config, form) if graph.name == name)
    return _trace(graph, model, config, form)


def graph_module(name: str, model: LSTFENet, config: Config, form: Form = "plain") -> nn.Module:
    """Return the PyTorch side of a graph (any but `preprocess`, which is no part of the model)."""
    sizes = GraphSizes.of(config)
    modules: dict[str, Callable[[], nn.Module]] = {
        "backbone": lambda: BackboneGraph(model),
        "align": lambda: AlignGraph(model) if form == "plain" else CommutedAlignGraph(model),
        "support": lambda: SupportGraph(model),
        "proposals": lambda: ProposalsGraph(model, max(sizes.num_proposals, sizes.num_reference_proposals)),
        "roi": lambda: RoiGraph(model),
        "relation": lambda: RelationGraph(model, sizes),
        "decode": lambda: DecodeGraph(model),
    }
    return modules[name]().eval()


def _trace(graph: Graph, model: LSTFENet, config: Config, form: Form) -> onnx.ModelProto:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own deprecations
        program = torch.onnx.export(
            graph_module(graph.name, model, config, form),
            random_inputs(graph.name, model, config, form),
            input_names=graph.inputs,
            output_names=graph.outputs,
            opset_version=config.export.opset,
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(graph, form),
            custom_translation_table={
                torch.ops.lstfe.suppress.default: suppress_in_onnx,
                torch.ops.lstfe.sampled_sum.default: sampled_sum_in_onnx,
            },
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    declare_domain(proto)
    onnx.checker.check_model(proto)
    return proto


def _dynamic_shapes(graph: Graph, form: Form) -> tuple[Any, ...] | None:
    """Return which axes of a graph's inputs are free: map sizes everywhere, the number of boxes in `roi`."""
    name = graph.name
    height, width = Dim("height"), Dim("width")
    free = {2: height, 3: width}
    if name == "backbone":
        return ({2: 32 * height, 3: 32 * width},)
    if name == "support":
        return (free,)
    if name == "align":
        last, before_last = (
            {3: height, 4: width},
            {2: height, 3: width},
        )  # of maps whose channels are the last axis
        of_frames = tuple(
            before_last if name == "short_term_support_maps" else last for name in graph.inputs[1:]
        )
        return (free, *of_frames) if form == "plain" else (free, of_frames)
    if name == "proposals":
        return free, free, {}
    if name == "roi":
        return free, {1: Dim("num_boxes")}
    return None


def _clip(boxes: Tensor, image_size: Tensor) -> Tensor:
    """`boxes.clip_to_image` for an image size that is an input of the graph."""
    limit = image_size.to(boxes.dtype).flip(0).repeat(2)  # width, height, width, height
    return torch.minimum(boxes.clamp(min=0), limit)


def _strip(proto: onnx.ModelProto) -> None:
    """Drop the traces of source files that the exporter leaves at every node."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    for graph in (proto.graph, *proto.functions):
        del graph.metadata_props[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
