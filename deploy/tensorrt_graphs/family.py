"""The second family of a bundle's graphs: those that TensorRT engines are built from.

The form `commuted` of `deploy.graphs`, with the plugin's operators, in the precision and for the opset that the
engines want. They are made on demand, from the bundle alone: `lstfe engine build` writes them where it builds, and
keeps none. The graph `preprocess` is not among them: TensorRT's resize has no antialiasing, so it runs where it did.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.bundle import Bundle
from deploy.export_onnx import build_graph
from deploy.graphs import QUANTIZED, GraphSizes, Precision, graphs_of
from deploy.network import load_network
from deploy.suppression import float32_threshold
from deploy.tensorrt_graphs.half_precision import to_half
from deploy.tensorrt_graphs.operators import (
    PLUGIN,
    PROPOSALS,
    declare_domain,
    use_deform_conv_plugin,
    use_suppression_plugin,
)
from deploy.tensorrt_graphs.opsets import OpsetError, cut_whole_shapes, lower_to_17
from deploy.tensorrt_graphs.rewrite import fold_constants, fold_scales, use_int32_borders
from lstfe.config import Config
from lstfe.model.proposals import LEAST_SIDE_PX, cell_anchors

OPSETS = (17, 20)
OPSET_OF_FP8 = 19
NOT_FOR_TENSORRT = ("preprocess",)
# The graphs that differ between the forms: they are exported again, the others are in the bundle.
_OF_THE_FORM = ("support", "align")
# Geometry and choice, in float32 whatever the rest is.
_ALWAYS_FLOAT = ("proposals", "decode")


def graph_names(config: Config) -> tuple[str, ...]:
    """Return the names of the graphs that engines are built from, in the order of Figure 1."""
    graphs = graphs_of(config, "commuted")
    return tuple(graph.name for graph in graphs if graph.name not in NOT_FOR_TENSORRT)


def write_tensorrt_graphs(
    bundle: Bundle, destination: Path, *, precision: Precision, opset: int, calibration: Path | None = None
) -> list[Path]:
    """Write the family of a bundle into `destination`, one `<graph>.onnx` each; return the paths.

    `opset` is 17 for TensorRT below 10, else 20 (`opsets.opset_for`). `calibration` is a prepared data set:
    int8 and fp8 take their ranges from the split `train`, and their AP is compared with PyTorch's on the split `val`,
    written to parity.json. Raises OpsetError, HalfPrecisionError, QuantizationError, and ParityError where they cost
    more AP than `export.max_ap_drop`; nothing but the report is written then.
    """
    models = build_tensorrt_graphs(bundle, precision=precision, opset=opset, calibration=calibration)
    destination.mkdir(parents=True, exist_ok=True)
    if precision in QUANTIZED and calibration is not None:
        from deploy.tensorrt_graphs.parity import check_family

        check_family(bundle, models, precision=precision, prepared_dir=calibration, report_dir=destination)
    for name, model in models.items():
        onnx.save(model, destination / f"{name}.onnx")
    return [destination / f"{name}.onnx" for name in models]


def build_tensorrt_graphs(
    bundle: Bundle, *, precision: Precision, opset: int = 20, calibration: Path | None = None
) -> dict[str, onnx.ModelProto]:
    """Build the family of a bundle in memory: name -> model; see `write_tensorrt_graphs`, but no AP is looked at."""
    if opset not in OPSETS:
        raise OpsetError(
            f"opset {opset} is not made for TensorRT, expected one of {', '.join(map(str, OPSETS))}"
        )
    if precision == "fp8" and opset < OPSET_OF_FP8:
        raise OpsetError(
            f"fp8 is not known to opset {opset}, which is for TensorRT below 10; use int8 or fp16"
        )
    models = {name: _single_precision(name, bundle) for name in graph_names(bundle.config)}
    if precision in QUANTIZED:
        from deploy.tensorrt_graphs.quantization import quantize_graphs

        models = quantize_graphs(models, bundle, calibration, precision)
    # Before opset 19 the scales of int8 are float32, and with them what lies between the quantized layers.
    if precision == "fp16" or (precision in QUANTIZED and opset >= 19):
        models = {name: model if name in _ALWAYS_FLOAT else to_half(model) for name, model in models.items()}
    for model in models.values():
        use_int32_borders(model)
        if opset == 17:
            lower_to_17(model)
        onnx.checker.check_model(model)
    return models


def proposals_graph(config: Config, opset: int) -> onnx.ModelProto:
    """Build the graph `proposals` as one node of the plugin: the float32 maps, image_size int32 -> boxes, valid."""
    proposals, sizes = config.model.proposals, GraphSizes.of(config)
    anchors = cell_anchors(proposals).numpy()
    number = max(sizes.num_proposals, sizes.num_reference_proposals)
    float_value, value = TensorProto.FLOAT, helper.make_tensor_value_info
    nodes = [
        helper.make_node(
            PROPOSALS,
            ["objectness", "box_deltas", "cell_anchors", "image_size"],
            ["boxes", "marks"],
            domain="lstfe",
            stride=float(config.model.backbone.feature_stride),
            pre_nms_top_k=proposals.pre_nms_top_k,
            post_nms_top_k=number,
            nms_iou=float32_threshold(proposals.nms_iou),
            min_size_px=float(max(proposals.min_size_px, LEAST_SIDE_PX)),
            **PLUGIN,
        ),
        helper.make_node("Cast", ["marks"], ["valid"], to=TensorProto.BOOL),
    ]
    graph = helper.make_graph(
        nodes,
        "proposals",
        [
            value("objectness", float_value, [1, len(anchors), "height", "width"]),
            value("box_deltas", float_value, [1, 4 * len(anchors), "height", "width"]),
            value("image_size", TensorProto.INT32, [2]),
        ],
        [value("boxes", float_value, [1, number, 4]), value("valid", TensorProto.BOOL, [1, number])],
        [numpy_helper.from_array(anchors, "cell_anchors")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    declare_domain(model)
    return model


def _single_precision(name: str, bundle: Bundle) -> onnx.ModelProto:
    if name == "proposals":
        return proposals_graph(bundle.config, bundle.config.export.opset)
    if name in _OF_THE_FORM:
        model = build_graph(name, load_network(bundle), bundle.config, "commuted")
    else:
        model = onnx.load(bundle.directory / f"{name}.onnx")
    fold_constants(model)
    fold_scales(model)
    cut_whole_shapes(model)
    use_deform_conv_plugin(model)
    use_suppression_plugin(model)
    return model
