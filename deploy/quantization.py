"""Post-training int8: ranges from real training frames, written into the graphs as QuantizeLinear and DequantizeLinear.

TensorRT reads such graphs as they are (explicit quantization), ONNX Runtime runs them. Symmetric, a scale per output
channel for weights and one per tensor for activations, biases and all else in float32. Quantized are the convolutions
and fully connected layers of backbone, support, align and roi, but for

    the stem                    three channels, little to gain
    the last layers before a    sampling offsets, the frames' weights, objectness and box deltas: detections hang on
    float32 value or a softmax  their last digits

The relation graph, a few small matrix products between norms of geometry, stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from deploy.bundle import Bundle
from deploy.expanded import PlainView, expanded_session, run_session
from deploy.graphs import graphs_of
from deploy.half_precision import LINEAR, last_before_float
from deploy.onnx_backend import OnnxGraphs
from deploy.runtime import StreamRuntime
from lstfe.config import Config
from lstfe.data.prepared import load_split
from lstfe.errors import UserError
from lstfe.evaluation.inference import frames_to_stream

Array = npt.NDArray[Any]

QUANTIZED_GRAPHS = ("backbone", "support", "align", "roi")
_OPERATORS = ["Conv", "Gemm", "MatMul"]
# Of an activation's magnitudes in a frame; what lies above is clipped. One bright spot must not cost all others a bit.
_KEPT_SHARE = 0.9999
# What TensorRT asks of explicitly quantized graphs beside what ONNX does.
_FOR_TENSORRT = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "AddQDQPairToWeight": True,
    "QuantizeBias": False,
    "DedicatedQDQPair": True,
    "OpTypesToExcludeOutputQuantization": _OPERATORS,
}


class QuantizationError(UserError):
    """Int8 graphs cannot be made, or would lose too much."""


def quantize_graphs(
    models: Mapping[str, onnx.ModelProto], bundle: Bundle, calibration: Path | None
) -> dict[str, onnx.ModelProto]:
    """Return a family of float32 graphs with its large layers in int8.

    `calibration` is a prepared data set, of whose split `train` `export.calibration_frames` frames are streamed.
    Raises QuantizationError without one.
    """
    if calibration is None:
        raise QuantizationError(
            "int8 takes its ranges from training frames: give a prepared data set (data/prepared/NAME)"
        )
    quantized = {
        name: layers for name in QUANTIZED_GRAPHS if name in models and (layers := layers_of(models[name]))
    }
    ranges = collect_ranges(models, quantized, bundle, calibration)
    return {
        name: insert_quantization(model, quantized[name], ranges[name]) if name in quantized else model
        for name, model in models.items()
    }


def layers_of(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers of a graph that int8 takes; every one gets a name if it has none."""
    constants = {value.name: value for value in model.graph.initializer}
    sensitive = last_before_float(model, ("Softmax",))
    inputs = {value.name for value in model.graph.input}
    layers = []
    for place, node in enumerate(model.graph.node):
        if node.op_type not in LINEAR or node.input[1] not in constants or node.output[0] in sensitive:
            continue
        if "image" in inputs and node.input[0] == "image":
            continue
        node.name = node.name or f"layer_{place}"
        layers.append(node.name)
    return layers


def collect_ranges(
    models: Mapping[str, onnx.ModelProto], layers: Mapping[str, list[str]], bundle: Bundle, calibration: Path
) -> dict[str, dict[str, float]]:
    """Stream training frames through a family: graph -> activation -> the largest magnitude worth keeping.

    `layers` names the layers of each graph whose inputs are looked at. The largest of the frames' 99.99 percentiles.
    """
    config = bundle.config
    annotations, store = load_split(calibration, "train")
    frames = frames_to_stream(annotations, config.export.calibration_frames)
    graphs = _CalibratingGraphs(models, layers, config)
    view = PlainView(graphs, OnnxGraphs(bundle.directory, config), config)
    for video, frame_ids in frames.items():
        stream = StreamRuntime(view, config, num_frames=len(frame_ids))
        stream.prime({place: store.read(video, frame_ids[place]) for place in stream.pool or ()})
        for frame_id in frame_ids:
            stream.push(store.read(video, frame_id))
        stream.finish()
    return graphs.ranges()


def insert_quantization(
    model: onnx.ModelProto, layers: list[str], ranges: Mapping[str, float]
) -> onnx.ModelProto:
    """Return a model with the layers' inputs and weights quantized by the ranges of their activations."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {name: (np.float32(-highest), np.float32(highest)) for name, highest in ranges.items()},
        ),
        nodes_to_quantize=layers,
        nodes_to_exclude=[],
        op_types_to_quantize=_OPERATORS,
        extra_options=_FOR_TENSORRT,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    quantized.producer_name = model.producer_name
    quantized.producer_version = model.producer_version
    onnx.checker.check_model(quantized)
    return quantized


class _CalibratingGraphs:
    """Runs a family like `ExpandedGraphs`, and keeps the range of what goes into the layers to be quantized."""

    def __init__(
        self, models: Mapping[str, onnx.ModelProto], layers: Mapping[str, list[str]], config: Config
    ) -> None:
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
            self._highest[name][value] = max(self._highest[name][value], _range_of(found))
        return results[: len(graph.outputs)]

    def ranges(self) -> dict[str, dict[str, float]]:
        """Return graph -> activation -> the magnitude that int8 must reach."""
        return self._highest


def _range_of(activation: Array) -> float:
    magnitudes = np.abs(activation).ravel()
    if magnitudes.size == 0:
        return 0.0
    place = min(int(_KEPT_SHARE * magnitudes.size), magnitudes.size - 1)
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
