from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser
from onnxruntime import InferenceSession

from deploy.tensorrt_graphs.rewrite import drop_unused, fold_constants, fold_scales, use_int32_borders


def built(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


def run(model: onnx.ModelProto, **feed: np.ndarray) -> list[np.ndarray]:
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def test_arithmetic_of_constants_is_folded_away() -> None:
    model = built(
        """g (float[1,4,2,2] x) => (float[1,2,2,2] y) {
            first, second = Split <axis = 1, num_outputs = 2> (weights)
            difference = Sub (first, second)
            y = Conv (x, difference)
        }""",
        weights=random(2, 8, 1, 1),
    )
    x = random(1, 4, 2, 2)
    [expected] = run(model, x=x)
    fold_constants(model)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert [value.name for value in model.graph.initializer] == ["difference"]
    np.testing.assert_allclose(run(model, x=x)[0], expected, atol=1e-6)


def test_a_graph_that_is_constant_keeps_its_output() -> None:
    model = built("g (float[1] x) => (float[1] y) { y = Add (one, one) }", one=np.ones(1, np.float32))
    fold_constants(model)
    assert run(model, x=random(1))[0] == 2


def test_a_frozen_batch_norm_becomes_part_of_its_convolution() -> None:
    model = built(
        """g (float[1,3,5,5] x) => (float[1,4,5,5] y) {
            convolved = Conv <pads = [1, 1, 1, 1]> (x, weight)
            scaled = Mul (convolved, factor)
            shifted = Add (scaled, summand)
            y = Relu (shifted)
        }""",
        weight=random(4, 3, 3, 3),
        factor=random(1, 4, 1, 1) * 3,
        summand=random(4, 1, 1),
    )
    x = random(1, 3, 5, 5)
    [expected] = run(model, x=x)
    fold_scales(model)
    assert [node.op_type for node in model.graph.node] == ["Conv", "Relu"]
    np.testing.assert_allclose(run(model, x=x)[0], expected, atol=1e-5)


def test_what_is_not_per_channel_or_read_twice_is_left_as_it_is() -> None:
    model = built(
        """g (float[1,2,3,3] x) => (float[1,2,3,3] y, float[1,2,3,3] z) {
            along_columns = Conv (x, weight)
            y = Mul (along_columns, columns)
            twice = Conv (x, weight)
            doubled = Mul (twice, factor)
            z = Add (doubled, twice)
        }""",
        weight=random(2, 2, 1, 1),
        columns=random(1, 1, 1, 3),
        factor=random(2, 1, 1),
    )
    before = [node.op_type for node in model.graph.node]
    fold_scales(model)
    assert [node.op_type for node in model.graph.node] == before


def test_int64_inputs_and_outputs_become_int32_under_the_same_names() -> None:
    model = built(
        """g (int64[2] size, float[2] x) => (int64[2] doubled, float[2] y, int64[2] again) {
            doubled = Add (size, size)
            again = Add (doubled, size)
            as_float = Cast <to = 1> (doubled)
            y = Mul (as_float, x)
        }"""
    )
    use_int32_borders(model)
    onnx.checker.check_model(model, full_check=True)
    feed = {"size": np.array([3, 4], np.int32), "x": np.ones(2, np.float32)}
    doubled, y, again = run(model, **feed)
    assert doubled.dtype == again.dtype == np.int32
    np.testing.assert_array_equal(doubled, [6, 8])
    np.testing.assert_array_equal(again, [9, 12])
    np.testing.assert_array_equal(y, [6.0, 8.0])


def test_nodes_that_nothing_reads_go_with_all_that_led_to_them() -> None:
    model = built(
        "g (float[1] x) => (float[1] y) { a = Exp (x) b = Add (a, one) y = Neg (x) }",
        one=np.ones(1, np.float32),
    )
    drop_unused(model)
    assert [node.op_type for node in model.graph.node] == ["Neg"]
    assert len(model.graph.initializer) == 0
