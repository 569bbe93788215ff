"""Post-training int8 and fp8: ranges from real training frames, written into the graphs as QuantizeLinear and
DequantizeLinear.

TensorRT reads such graphs as they are (explicit quantization), ONNX Runtime runs them. Symmetric; activations have one
scale a tensor, weights one an output channel in int8 and one a tensor in fp8 (float8e4m3fn); all else stays as it was.
Taken are the convolutions and fully connected layers of backbone, support, align and roi, but for

    layers that read finer      the stem, and by default layer1: small objects live there, and rounding there costs the
    maps than                   objectness most of all
    `export.int8_min_stride`
    the last layers before a    sampling offsets, the frames' weights, objectness and box deltas: detections hang on
    float32 value or a softmax  their last digits
    in fp8, layers with a       TensorRT has no kernels of fp8 for them
    number of channels that is
    no multiple of 16

The relation graph, a few small matrix products between norms of geometry, stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.bundle import Bundle
from deploy.device import Array
from deploy.graphs import Quantized, graphs_of
from deploy.onnx_backend import OnnxGraphs
from deploy.runtime import StreamRuntime
from deploy.tensorrt_graphs.expanded import PlainView, expanded_session, run_session
from deploy.tensorrt_graphs.half_precision import last_before_float
from deploy.tensorrt_graphs.operators import attributes_of
from deploy.tensorrt_graphs.rewrite import replace_nodes
from lstfe.config import Config
from lstfe.data.prepared import load_split
from lstfe.errors import UserError
from lstfe.evaluation.inference import frames_to_stream

QUANTIZED_GRAPHS = ("backbone", "support", "align", "roi")
_OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What the layers compute in."""

    element_type: int
    largest: float
    has_channel_scales: bool
    """Of weights; TensorRT knows per-channel scales of fp8 for matrix products on some GPUs alone."""
    kept_share: float
    """Of an activation's magnitudes in a frame; what lies above is clipped."""
    channel_multiple: int
    """What the numbers of channels of a layer must be a multiple of."""


_NUMBERS: dict[Quantized, _Numbers] = {
    # One bright spot must not cost all others a bit.
    "int8": _Numbers(TensorProto.INT8, 127, True, 0.9999, 1),
    # A float's steps are as fine for small values whatever the largest is.
    "fp8": _Numbers(TensorProto.FLOAT8E4M3FN, 448, False, 1.0, 16),
}


class QuantizationError(UserError):
    """Quantized graphs cannot be made, or would lose too much."""


def quantize_graphs(
    models: Mapping[str, onnx.ModelProto],
    bundle: Bundle,
    calibration: Path | None,
    precision: Quantized = "int8",
) -> dict[str, onnx.ModelProto]:
    """Return a family of float32 graphs with its large layers quantized.

    `calibration` is a prepared data set, of whose split `train` `export.calibration_frames` frames are streamed.
    Raises QuantizationError without one.
    """
    if calibration is None:
        raise QuantizationError(
            f"{precision} takes its ranges from training frames: give a prepared data set (data/prepared/NAME)"
        )
    min_stride = bundle.config.export.int8_min_stride
    found = {
        name: layers_of(models[name], precision, min_stride=min_stride)
        for name in QUANTIZED_GRAPHS
        if name in models
    }
    quantized = {name: layers for name, layers in found.items() if layers}
    ranges = collect_ranges(models, quantized, bundle, calibration, precision)
    return {
        name: insert_quantization(model, quantized[name], ranges[name], precision)
        if name in quantized
        else model
        for name, model in models.items()
    }


def layers_of(model: onnx.ModelProto, precision: Quantized = "int8", *, min_stride: int = 2) -> list[str]:
    """Return the names of the layers of a graph that are quantized; every one gets a name if it has none.

    `min_stride` is the finest map that they may read, in image pixels a cell, where the graph begins with the image.
    """
    constants = {value.name: value for value in model.graph.initializer}
    sensitive = last_before_float(model, ("Softmax",))
    strides = _strides(model)
    layers = []
    for place, node in enumerate(model.graph.node):
        if node.op_type not in _OPERATORS or node.input[1] not in constants or node.output[0] in sensitive:
            continue
        if any(size % _NUMBERS[precision].channel_multiple for size in constants[node.input[1]].dims[:2]):
            continue
        if strides.get(node.input[0], min_stride) < min_stride:
            continue
        node.name = node.name or f"layer_{place}"
        layers.append(node.name)
    return layers


def _strides(model: onnx.ModelProto) -> dict[str, int]:
    """Return the image pixels a cell of the maps that come from the input `image`."""
    strides = {value.name: 1 for value in model.graph.input if value.name == "image"}
    for node in model.graph.node:
        known = [strides[name] for name in node.input if name in strides]
        if known:
            step = attributes_of(node).get("strides", [1])[0] if node.op_type in ("Conv", "MaxPool") else 1
            strides |= dict.fromkeys(node.output, max(known) * step)
    return strides


def collect_ranges(
    models: Mapping[str, onnx.ModelProto],
    layers: Mapping[str, list[str]],
    bundle: Bundle,
    calibration: Path,
    precision: Quantized = "int8",
) -> dict[str, dict[str, float]]:
    """Stream training frames through a family: graph -> activation -> the largest magnitude worth keeping.

    `layers` names the layers of each graph whose inputs are looked at. The largest of the frames' 99.99 percentiles in
    int8, of all values in fp8.
    """
    config = bundle.config
    annotations, store = load_split(calibration, "train", label_names=bundle.label_names)
    frames = frames_to_stream(annotations, config.export.calibration_frames)
    graphs = _CalibratingGraphs(models, layers, config, _NUMBERS[precision].kept_share)
    view = PlainView(graphs, OnnxGraphs(bundle.directory, config), config)
    for video, frame_ids in frames.items():
        stream = StreamRuntime(view, config, num_frames=len(frame_ids))
        stream.prime({place: store.read(video, frame_ids[place]) for place in stream.pool or ()})
        for frame_id in frame_ids:
            stream.push(store.read(video, frame_id))
        stream.finish()
    return graphs.ranges()


def insert_quantization(
    model: onnx.ModelProto, layers: list[str], ranges: Mapping[str, float], precision: Quantized = "int8"
) -> onnx.ModelProto:
    """Return a model with the layers' inputs and weights quantized by the ranges of their activations.

    Each layer has pairs of its own, as TensorRT fuses them. Weights stay float32 constants with a pair behind them.
    """
    numbers = _NUMBERS[precision]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {value.name: value for value in copy.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in copy.graph.node:
        if node.name in layers:
            data, name = node.input[:2]
            weight = numpy_helper.to_array(constants[name])
            axis = _output_axis(node, weight) if numbers.has_channel_scales else None
            others = tuple(place for place in range(weight.ndim) if place != axis)
            pairs = ((0, data, np.float32(ranges[data]), None), (1, name, np.abs(weight).max(others), axis))
            for place, value, highest, scale_axis in pairs:
                prefix = f"{node.name}_{('data', 'weight')[place]}"
                copy.graph.initializer.extend(_constants(prefix, highest, numbers))
                nodes += _pair(prefix, value, scale_axis)
                node.input[place] = f"{prefix}_rounded"
        nodes.append(node)
    replace_nodes(copy, nodes)
    onnx.checker.check_model(copy)
    return copy


def _output_axis(node: onnx.NodeProto, weight: Array) -> int:
    """Return the axis of a layer's output channels in its weight."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attributes_of(node).get("transB", 0)):
        return 0
    return weight.ndim - 1


def _constants(prefix: str, highest: Array | np.float32, numbers: _Numbers) -> list[onnx.TensorProto]:
    """Return scales that map `highest` to the largest number, and zero points, which say the type."""
    scale = np.where(highest > 0, highest / np.float32(numbers.largest), np.float32(1)).astype(np.float32)
    zeros = bytes(scale.size)  # a byte each, in either type
    return [
        numpy_helper.from_array(scale, f"{prefix}_scale"),
        helper.make_tensor(f"{prefix}_zero", numbers.element_type, scale.shape, zeros, raw=True),
    ]


def _pair(prefix: str, value: str, axis: int | None) -> list[onnx.NodeProto]:
    """Return the two nodes that round a value to what the layer computes in."""
    scale, zero, quantized, rounded = (
        f"{prefix}_{part}" for part in ("scale", "zero", "quantized", "rounded")
    )
    nodes = [
        helper.make_node("QuantizeLinear", [value, scale, zero], [quantized], name=quantized),
        helper.make_node("DequantizeLinear", [quantized, scale, zero], [rounded], name=rounded),
    ]
    if axis is not None:
        for node in nodes:
            node.attribute.append(helper.make_attribute("axis", axis))
    return nodes


class _CalibratingGraphs:
    """Runs a family like `ExpandedGraphs`, and keeps the range of what goes into the layers to be quantized."""

    def __init__(
        self,
        models: Mapping[str, onnx.ModelProto],
        layers: Mapping[str, list[str]],
        config: Config,
        kept_share: float,
    ) -> None:
        self._kept_share = kept_share
        self._graphs = {graph.name: graph for graph in graphs_of(config, "commuted")}
        self._observed = {name: _inputs_of(models[name], layers.get(name, [])) for name in models}
        self._sessions = {
            name: expanded_session(_with_outputs(model, self._observed[name]))
            for name, model in models.items()
        }
        self._highest = {name: dict.fromkeys(values, 0.0) for name, values in self._observed.items()}

    def run(self, name: str, *inputs: Array) -> list[Array]:
        """Run one graph once."""
        graph = self._graphs[name]
        observed = self._observed[name]
        widened = replace(graph, outputs=(*graph.outputs, *observed))
        results = run_session(self._sessions[name], widened, inputs)
        for value, found in zip(observed, results[len(graph.outputs) :], strict=True):
            self._highest[name][value] = max(self._highest[name][value], _range_of(found, self._kept_share))
        return results[: len(graph.outputs)]

    def ranges(self) -> dict[str, dict[str, float]]:
        """Return graph -> activation -> the magnitude that the layers must reach."""
        return self._highest


def _range_of(activation: Array, kept_share: float) -> float:
    magnitudes = np.abs(activation).ravel()
    if magnitudes.size == 0:
        return 0.0
    place = min(int(kept_share * magnitudes.size), magnitudes.size - 1)
    return float(np.partition(magnitudes, place)[place])


def _inputs_of(model: onnx.ModelProto, layers: list[str]) -> list[str]:
    """Return the activations that layers read, each once, graph inputs included."""
    return list(dict.fromkeys(node.input[0] for node in model.graph.node if node.name in layers))


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in present
    )
    return copy
