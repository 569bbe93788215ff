"""The contract between the exported graphs and whoever runs them: names, inputs, outputs, fixed sizes.

State lives outside the graphs. N current proposals, P proposals of a reference frame, S aligned, R related
and G long-term frames are fixed numbers; frame sizes, H x W and h x w are free. Missing proposals are zero
boxes with a false `valid`. This module imports no torch, onnx or onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lstfe.config import Config
from lstfe.window import alignment_gaps, relation_gaps

Form = Literal["plain", "commuted"]
"""`plain`: standard ONNX, what ONNX Runtime runs. `commuted`: the same network for TensorRT; what the last deformable
convolution needs of a frame is computed once per frame (lstfe/model/alignment.py), by a graph of its own."""


Quantized = Literal["int8", "fp8"]
QUANTIZED: tuple[Quantized, ...] = ("int8", "fp8")
Precision = Literal["fp32", "fp16", "int8", "fp8"]
"""What the graphs for TensorRT compute in: fp16 with float32 where it matters; int8 or fp8 in the large layers, the
rest as fp16 (before opset 19, so for TensorRT below 10, float32, and no fp8)."""

HALF_VALUES = frozenset({"features", "support_maps", "roi_map", "proposal_features"})
"""What goes from graph to graph in half precision where the rest of the graphs is fp16; all else stays float32."""


def role_of(name: str) -> str:
    """Return what an input holds, without the frames that it is of: short_term_boxes -> boxes."""
    return name.removeprefix("short_term_").removeprefix("long_term_")


@dataclass(frozen=True, slots=True)
class GraphSizes:
    """The fixed numbers of a detector's graphs; 0 where a method has no such part."""

    num_proposals: int
    """N, current frame; the proposals graph always gives max(N, P)."""
    num_reference_proposals: int
    """P, each reference frame: the best P of the same list."""
    num_alignment: int
    """S."""
    num_relation: int
    """R."""
    num_long_term: int
    """G, after the selection."""

    @staticmethod
    def of(config: Config) -> GraphSizes:
        """Read the sizes off a configuration whose method is resolved."""
        stages, inference = config.model.relation.stages, config.inference
        aligned = config.model.alignment.num_blocks > 0
        return GraphSizes(
            num_proposals=config.model.proposals.current_top_k,
            num_reference_proposals=config.model.proposals.reference_top_k,
            num_alignment=len(alignment_gaps(inference)) if aligned else 0,
            num_relation=len(relation_gaps(inference)) if "short_term" in stages else 0,
            num_long_term=(
                min(config.model.selection.num_frames, inference.num_candidates)
                if "long_term" in stages
                else 0
            ),
        )

    @property
    def lengths(self) -> dict[str, int]:
        """Length of axis 1 of the inputs that an export fixes."""
        return {
            "short_term_features": self.num_alignment,
            "short_term_support_maps": self.num_alignment,
            "short_term_offset_response": self.num_alignment,
            "proposal_features": self.num_proposals,
            "short_term_proposal_features": self.num_relation * self.num_reference_proposals,
            "long_term_proposal_features": self.num_long_term * self.num_reference_proposals,
        }


@dataclass(frozen=True, slots=True)
class Graph:
    """One ONNX file, `<name>.onnx`, with its inputs and outputs in order."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def graphs_of(config: Config, form: Form = "plain") -> tuple[Graph, ...]:
    """Return the graphs of a detector, in the order of Figure 1; parts that a method lacks have none.

    preprocess frame (height, width, 3) uint8 RGB -> image (1, 3, H, W) padded, image_size (2,) before it
    backbone   image -> features (1, C, h, w), roi_map, objectness, box_deltas, descriptor (1, E)
    align      features, short_term_features (1, S, C, h, w) -> roi_map, objectness, box_deltas
    proposals  objectness (1, A, h, w), box_deltas (1, 4A, h, w), image_size -> boxes (1, K, 4) best first,
               valid (1, K); K = max(N, P)
    roi        roi_map (1, C', h, w), boxes (1, any, 4) -> proposal_features (1, any, D)
    relation   proposal_features, boxes, valid of the N current proposals, of R * P short-term and of G * P
               long-term ones -> class_logits (1, N, classes), class_box_deltas (1, N, 4 * classes)
    decode     class_logits, class_box_deltas, boxes, valid, image_size, original_size (2,) -> boxes (M, 4) in
               original pixels, scores (M,) descending and 0 past the last one, labels (M,)

    The form `commuted` has one graph more where there is alignment, and other inputs of `align`; K x K taps:

    support    features -> support_maps (1, h, w, K*K*C) W_p f_s, tap-major, without bias; offset_response
               (1, 2*K*K, h, w), the first offset convolution's share of f_s, without bias; once per frame
    align      features, short_term_support_maps (1, S, h, w, K*K*C), short_term_offset_response
               (1, S, 2*K*K, h, w) -> as above; with several blocks short_term_features stays the second input
    """
    sizes = GraphSizes.of(config)
    maps = ("roi_map", "objectness", "box_deltas")
    proposals = ("proposal_features", "boxes", "valid")
    relation_inputs: tuple[str, ...] = proposals
    if sizes.num_relation:
        relation_inputs += tuple(f"short_term_{name}" for name in proposals)
    if sizes.num_long_term:
        relation_inputs += tuple(f"long_term_{name}" for name in proposals)
    head = ("class_logits", "class_box_deltas")
    graphs = [
        Graph("preprocess", ("frame",), ("image", "image_size")),
        Graph("backbone", ("image",), ("features", *maps, "descriptor")),
    ]
    if sizes.num_alignment:
        graphs += _alignment_graphs(config.model.alignment.num_blocks, form, maps)
    graphs += [
        Graph("proposals", ("objectness", "box_deltas", "image_size"), ("boxes", "valid")),
        Graph("roi", ("roi_map", "boxes"), ("proposal_features",)),
        Graph("relation", relation_inputs, head),
        Graph(
            "decode",
            (*head, "boxes", "valid", "image_size", "original_size"),
            ("detection_boxes", "detection_scores", "detection_labels"),
        ),
    ]
    return tuple(graphs)


def _alignment_graphs(num_blocks: int, form: Form, maps: tuple[str, ...]) -> list[Graph]:
    if form == "plain":
        return [Graph("align", ("features", "short_term_features"), maps)]
    support = ("support_maps", "offset_response")
    # Only the blocks before the last one read the features themselves.
    cascade = ("short_term_features",) if num_blocks > 1 else ()
    inputs = ("features", *cascade, *(f"short_term_{name}" for name in support))
    return [Graph("support", ("features",), support), Graph("align", inputs, maps)]
