from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnxruntime import InferenceSession

from deploy.tensorrt_graphs.opsets import OpsetError, lower_to_17, opset_for, opset_of, require_opset

ONE = np.array([1], np.int64)


def built(body: str, opset: int = 20, **constants: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : {opset}]> g (float[2,3,height,width] x) => (float[n] y) {{ {body} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return onnx.shape_inference.infer_shapes(model, data_prop=True)  # fills the output's shape in


def run(model: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5), np.float32)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize(
    "body",
    [
        "y = ReduceMean <keepdims = 0> (x, one)",
        "y = ReduceMax (x, one)",
        "y = ReduceMean <keepdims = 0> (x)",
        "a, b, c = Split <axis = 1, num_outputs = 3> (x) y = Sub (a, c)",
        "s = Shape <start = 2> (x) y = Cast <to = 1> (s)",
        "s = Shape <start = 1, end = -1> (x) y = Cast <to = 1> (s)",
        "s = Shape (x) y = Cast <to = 1> (s)",
        "y = ReduceSum <keepdims = 0> (x, one)",
    ],
)
def test_a_graph_of_opset_17_gives_what_it_gave_before(body: str) -> None:
    model = built(body, one=ONE)
    expected = run(model)
    lower_to_17(model)
    assert opset_of(model) == 17
    require_opset(model, "8.5.3")
    np.testing.assert_array_equal(run(model), expected)


def test_computed_axes_have_no_form_in_opset_17() -> None:
    model = built("s = Shape <start = 0, end = 1> (x) a = Sub (s, one) y = ReduceMean (x, a)", one=ONE)
    with pytest.raises(OpsetError, match="the axes of ReduceMean are computed"):
        lower_to_17(model)


def test_a_resize_with_antialiasing_has_no_form_in_opset_17() -> None:
    model = built(
        'y = Resize <mode = "linear", antialias = 1> (x, , scales)', scales=np.full(4, 0.5, np.float32)
    )
    with pytest.raises(OpsetError, match="Resize with antialias=1"):
        lower_to_17(model)


@pytest.mark.parametrize(
    ("version", "opset"),
    [("8.5.3", 17), ("8.6", 17), ("9.3.0", 17), ("10.0.1", 20), ("10.13", 20), ("11.1", 20)],
)
def test_each_tensorrt_has_its_opset(version: str, opset: int) -> None:
    assert opset_for(version) == opset
    require_opset(built("y = Relu (x)", opset), version)


def test_a_newer_opset_is_refused_for_an_old_tensorrt_with_the_way_out() -> None:
    with pytest.raises(
        OpsetError, match=r"opset 20, TensorRT 8\.6\.1 reads 17 to 17.*again for opset 17"
    ) as caught:
        require_opset(built("y = Relu (x)"), "8.6.1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = ReduceMean (x, one)", "ReduceMean has its axes as an input"),
        ("s = Shape <start = 2> (x) y = Cast <to = 1> (s)", "Shape has a start or an end"),
    ],
)
def test_a_graph_that_only_says_opset_17_is_refused(body: str, reason: str) -> None:
    model = built(body, 17, one=ONE)
    with pytest.raises(OpsetError, match=reason):
        require_opset(model, "8.5.3")


@pytest.mark.parametrize("version", ["8.4.1", "seven", "10"])
def test_versions_too_old_or_unreadable_are_refused(version: str) -> None:
    with pytest.raises(OpsetError, match=r"8\.5 or newer|one like 8\.6\.1"):
        require_opset(built("y = Relu (x)"), version)
