from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper, parser
from onnxruntime import InferenceSession

from deploy.bundle import Bundle, open_bundle
from deploy.tensorrt_graphs.expanded import expanded_session
from deploy.tensorrt_graphs.operators import attributes_of
from deploy.tensorrt_graphs.quantization import (
    QuantizationError,
    insert_quantization,
    layers_of,
    quantize_graphs,
)
from lstfe.data.faults import AnnotationError

BODY = """
<ir_version: 10, opset_import: ["" : 20, "lstfe" : 1]>
g (float[1,3,8,8] image, float[1,4] box_vector)
    => (float[1,4,4,4] roi_map, float[1,4,4,4] objectness, float[1,2] features)
{
    stem = Conv <strides = [2, 2]> (image, stem_weight)
    active = Relu (stem)
    deep = Conv <pads = [1, 1, 1, 1]> (active, weight, bias)
    roi_map = Relu (deep)
    objectness = Conv (roi_map, last_weight)
    frame_logits = Conv (roi_map, last_weight)
    reshaped = Reshape (frame_logits, flat)
    frame_weights = Softmax (reshaped)
    vectors = Gemm <transB = 1> (box_vector, matrix)
    features = Relu (vectors)
}
"""


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


@pytest.fixture
def graph() -> onnx.ModelProto:
    model = parser.parse_model(BODY)
    per_channel = np.array([1.0, 10.0, 0.1, 1.0], np.float32).reshape(4, 1, 1, 1)
    constants = {
        "stem_weight": random(4, 3, 1, 1),
        "weight": random(4, 4, 3, 3) * per_channel,
        "bias": random(4),
        "last_weight": random(4, 4, 1, 1),
        "matrix": random(2, 4),
        "flat": np.array([1, -1], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    feed = {"image": random(1, 3, 8, 8), "box_vector": random(1, 4)}
    return list(InferenceSession(model.SerializeToString()).run(None, feed))


def test_stem_and_the_last_layers_before_float32_are_left_out(graph: onnx.ModelProto) -> None:
    layers = layers_of(graph)
    taken = [node.output[0] for node in graph.graph.node if node.name in layers]
    assert taken == ["deep", "vectors"]


def test_layers_that_read_finer_maps_than_allowed_are_left_out() -> None:
    model = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        g (float[1,3,32,32] image) => (float[1,3,4,4] roi_map)
        {
            a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (image, weight)
            b = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
            c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (b, weight)
            d = Conv <pads = [1, 1, 1, 1]> (c, weight)
            roi_map = Relu (d)
        }""")
    model.graph.initializer.append(numpy_helper.from_array(random(3, 3, 3, 3), "weight"))

    def taken(min_stride: int) -> list[str]:
        layers = layers_of(model, min_stride=min_stride)
        return [node.output[0] for node in model.graph.node if node.name in layers]

    assert {stride: taken(stride) for stride in (1, 4, 8, 16)} == {
        1: ["a", "c", "d"],
        4: ["c", "d"],
        8: ["d"],
        16: [],
    }


def test_quantized_layers_are_as_tensorrt_reads_them(graph: onnx.ModelProto) -> None:
    quantized = insert_quantization(graph, layers_of(graph), {"active": 3.0, "box_vector": 2.0})
    constants = {value.name: numpy_helper.to_array(value) for value in quantized.graph.initializer}
    producers = {name: node for node in quantized.graph.node for name in node.output}
    marks = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    assert len(marks) == 4  # input and weight of two layers, no outputs
    for node in marks:
        assert constants[node.input[2]].dtype == np.int8
        assert not constants[node.input[2]].any()
    deep = producers["deep"]
    data, weight, bias = (producers.get(name) for name in deep.input)
    assert data is not None
    assert weight is not None
    assert bias is None  # stays a float32 constant
    assert constants[data.input[1]] == pytest.approx(3.0 / 127, rel=0.01)
    scales = constants[weight.input[1]]
    assert scales.shape == (4,)
    assert attributes_of(weight).get("axis", 1) == 0
    assert scales[1] / scales[2] > 20  # a scale a channel: the channels' sizes differ a hundredfold
    assert (
        producers[weight.input[0]].op_type == "QuantizeLinear"
    )  # weights as a float constant, a pair behind it


def test_a_quantized_graph_stays_near(graph: onnx.ModelProto) -> None:
    highest = float(np.abs(random(1, 3, 8, 8)).max() * 10)
    quantized = insert_quantization(graph, layers_of(graph), {"active": highest, "box_vector": 3.0})
    for one, other in zip(run(graph), run(quantized), strict=True):
        assert 0 < np.abs(one - other).max() <= 0.1 * np.abs(one).max()


def test_fp8_rounds_as_torch_does(graph: onnx.ModelProto) -> None:
    ranges = {"active": 20.0, "box_vector": 3.0}
    quantized = insert_quantization(graph, layers_of(graph), ranges, "fp8")
    session = expanded_session(quantized)
    feed = {"image": random(1, 3, 8, 8), "box_vector": random(1, 4)}
    (roi_map,) = session.run(["roi_map"], feed)

    def rounded(value: torch.Tensor, highest: float) -> torch.Tensor:
        scale = highest / 448
        return (value / scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(torch.float32) * scale

    constants = {
        value.name: torch.from_numpy(numpy_helper.to_array(value).copy()) for value in graph.graph.initializer
    }
    stem = torch.nn.functional.conv2d(torch.from_numpy(feed["image"]), constants["stem_weight"], stride=2)
    weight = rounded(constants["weight"], float(constants["weight"].abs().max()))
    deep = torch.nn.functional.conv2d(rounded(stem.relu(), 20.0), weight, constants["bias"], padding=1)
    assert roi_map == pytest.approx(deep.relu().numpy(), rel=1e-4, abs=1e-4)
    plain = torch.nn.functional.conv2d(stem.relu(), constants["weight"], constants["bias"], padding=1).relu()
    assert 0.005 < (deep.relu() - plain).abs().max() / plain.abs().max() < 0.06


def test_fp8_leaves_out_layers_whose_channels_tensorrt_has_no_kernels_for(graph: onnx.ModelProto) -> None:
    assert layers_of(graph, "fp8") == []  # 4 channels
    for value in graph.graph.initializer:
        if value.name == "weight":
            value.CopyFrom(numpy_helper.from_array(random(16, 32, 3, 3), "weight"))
    (name,) = layers_of(graph, "fp8")
    assert next(node for node in graph.graph.node if node.name == name).output[0] == "deep"


def test_fp8_has_one_scale_a_tensor(graph: onnx.ModelProto) -> None:
    quantized = insert_quantization(graph, layers_of(graph), {"active": 3.0, "box_vector": 2.0}, "fp8")
    marks = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
    constants = {value.name: value for value in quantized.graph.initializer}
    assert len(marks) == 4
    for node in marks:
        assert list(constants[node.input[1]].dims) == []
        assert constants[node.input[2]].data_type == TensorProto.FLOAT8E4M3FN


def test_equal_graphs_and_ranges_give_equal_bytes(graph: onnx.ModelProto) -> None:
    layers, ranges = layers_of(graph), {"active": 3.0, "box_vector": 2.0}
    first, second = (insert_quantization(graph, layers, ranges).SerializeToString() for _ in range(2))
    assert first == second


def test_int8_without_training_frames_is_refused(bundle_dir: Path, graph: onnx.ModelProto) -> None:
    bundle: Bundle = open_bundle(bundle_dir)
    with pytest.raises(QuantizationError, match=r"give a prepared data set \(data/prepared/NAME\)"):
        quantize_graphs({"backbone": graph}, bundle, None)


def test_ranges_are_not_taken_from_a_data_set_of_other_categories(
    bundle_dir: Path, tiny_prepared: Path
) -> None:
    with pytest.raises(AnnotationError, match=r"train\.json: the split lacks the detector's bird"):
        quantize_graphs({}, open_bundle(bundle_dir), tiny_prepared)


def test_a_graph_s_types_stay_float32_at_its_borders(graph: onnx.ModelProto) -> None:
    quantized = insert_quantization(graph, layers_of(graph), {"active": 3.0, "box_vector": 2.0})
    for value in (*quantized.graph.input, *quantized.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
