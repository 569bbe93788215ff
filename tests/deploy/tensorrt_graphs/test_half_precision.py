from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper, parser
from onnxruntime import InferenceSession

from deploy.tensorrt_graphs.half_precision import HalfPrecisionError, share_of_half, to_half
from deploy.tensorrt_graphs.types import GraphTypeError, element_types, infer_types

HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def built(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20, "lstfe" : 1]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def types_of_inputs(model: onnx.ModelProto, op_type: str) -> list[list[int]]:
    types = element_types(model)
    return [[types[name] for name in node.input] for node in model.graph.node if node.op_type == op_type]


def test_a_norm_stays_float32_between_half_convolutions() -> None:
    model = built(
        """g (float[1,2,6,6] features) => (float[1,2,6,6] roi_map) {
            a = Conv (features, weight)
            b = InstanceNormalization (a, scale, shift)
            c = Add (b, features)
            d = Relu (c)
            e = Conv (d, weight)
            roi_map = Relu (e)
        }""",
        weight=random(2, 2, 1, 1),
        scale=random(2),
        shift=random(2),
    )
    half = to_half(model)
    assert types_of_inputs(half, "Conv") == [[HALF, HALF]] * 2
    assert types_of_inputs(half, "InstanceNormalization") == [[FLOAT] * 3]
    assert types_of_inputs(half, "Relu") == [[HALF]] * 2
    borders = [value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)]
    assert borders == [HALF, HALF]
    features = random(1, 2, 6, 6)
    [expected] = InferenceSession(model.SerializeToString()).run(None, {"features": features})
    [found] = InferenceSession(half.SerializeToString()).run(None, {"features": features.astype(np.float16)})
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_last_layer_before_a_float32_output_is_float32() -> None:
    model = built(
        """g (float[1,2,4,4] features) => (float[1,2,4,4] objectness) {
            hidden = Conv (features, weight)
            active = Relu (hidden)
            logits = Conv (active, weight)
            objectness = Reshape (logits, shape)
        }""",
        weight=random(2, 2, 1, 1),
        shape=np.array([1, 2, 4, 4], np.int64),
    )
    half = to_half(model)
    assert types_of_inputs(half, "Conv") == [[HALF, HALF], [FLOAT, FLOAT]]
    assert share_of_half(half) == 0.5


def test_offsets_are_float32_from_their_convolution_to_the_plugin() -> None:
    model = built(
        """g (float[1,2,4,4] features, float[1,4,4,18] support_maps) => (float[1,2,4,4] roi_map) {
            offsets = Conv <pads = [1, 1, 1, 1]> (features, offset_weight)
            scaled = Mul (offsets, offsets)
            roi_map = lstfe.LstfeSampledSum <kernel_shape = [3, 3], has_bias = 1> (support_maps, scaled, bias)
        }""",
        offset_weight=random(18, 2, 3, 3),
        bias=random(2),
    )
    half = to_half(model)
    assert types_of_inputs(half, "Conv") == [[FLOAT, FLOAT]]
    assert types_of_inputs(half, "LstfeSampledSum") == [[HALF, FLOAT, FLOAT]]


def test_gates_that_see_only_boxes_stay_float32() -> None:
    model = built(
        """g (float[1,3,4] boxes, float[1,3,4] proposal_features) => (float[1,3,3] class_logits) {
            gate = MatMul (boxes, weight)
            open = Relu (gate)
            keys = MatMul (proposal_features, weight)
            logits = Add (keys, open)
            attention = Softmax (logits)
            mixed = MatMul (attention, proposal_features)
            active = Relu (mixed)
            class_logits = MatMul (active, head)
        }""",
        weight=random(4, 3),
        head=random(4, 3),
    )
    gate, keys, mixed, logits = types_of_inputs(to_half(model), "MatMul")
    assert (gate, keys, mixed, logits) == ([FLOAT] * 2, [HALF] * 2, [HALF] * 2, [FLOAT] * 2)


def test_a_constant_for_both_precisions_is_kept_twice() -> None:
    model = built(
        """g (float[2,2] proposal_features, float[2,2] boxes) => (float[2,2] class_logits) {
            a = MatMul (proposal_features, weight)
            b = MatMul (boxes, weight)
            class_logits = Sub (a, b)
        }""",
        weight=random(2, 2),
    )
    # Both products end in the float32 output, so neither is half; a Relu between makes the first one half.
    model.graph.node[2].input[0] = "active"
    model.graph.node.insert(2, onnx.helper.make_node("Relu", ["a"], ["active"]))
    half = to_half(model)
    assert sorted(value.data_type for value in half.graph.initializer) == [FLOAT, HALF]


def test_int8_layers_take_and_give_half_precision_with_scales_that_never_vanish() -> None:
    model = built(
        """g (float[1,2,3,3] features) => (float[1,2,3,3] roi_map) {
            marked = QuantizeLinear (features, scale, zero)
            data = DequantizeLinear (marked, scale, zero)
            marked_weight = QuantizeLinear <axis = 0> (weight, scales, zeros)
            taken = DequantizeLinear <axis = 0> (marked_weight, scales, zeros)
            sum = Conv (data, taken)
            roi_map = Relu (sum)
        }""",
        scale=np.array(0.02, np.float32),
        zero=np.array(0, np.int8),
        weight=random(2, 2, 1, 1) * np.array([1.0, 1e-12], np.float32).reshape(2, 1, 1, 1),
        scales=np.array([0.01, 1e-14], np.float32),
        zeros=np.zeros(2, np.int8),
    )
    half = to_half(model)
    assert types_of_inputs(half, "Conv") == [[HALF, HALF]]
    assert [types[1] for types in types_of_inputs(half, "DequantizeLinear")] == [HALF, HALF]
    features = random(1, 2, 3, 3)
    [found] = InferenceSession(half.SerializeToString()).run(None, {"features": features.astype(np.float16)})
    [expected] = InferenceSession(model.SerializeToString()).run(None, {"features": features})
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_weight_too_large_for_half_is_refused() -> None:
    model = built(
        "g (float[1,1,2,2] features) => (float[1,1,2,2] roi_map) { roi_map = Conv (features, weight) }",
        weight=np.full((1, 1, 1, 1), 7e4, np.float32),
    )
    with pytest.raises(HalfPrecisionError, match=r"weight has a value of 7e\+04, half precision holds 65504"):
        to_half(model)


def test_a_graph_of_mixed_types_is_refused_with_one_line() -> None:
    model = built(
        "g (float[2] x, float16[2] y) => (float[2] z) { z = Add (x, y) }",
    )
    with pytest.raises(GraphTypeError, match="types do not go together") as caught:
        infer_types(model, strict=True)
    assert "\n" not in str(caught.value)
