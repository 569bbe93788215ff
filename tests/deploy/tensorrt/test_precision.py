"""How TensorRT before 10 is held to the precision of its graphs; the stand-in refuses what it would refuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.graphs import Precision
from deploy.tensorrt.build import EngineBuild
from deploy.tensorrt.cuda import Gpu
from deploy.tensorrt.library import open_tensorrt
from deploy.tensorrt.manifest import EngineError
from deploy.tensorrt.precision import require_kernels

from .conftest import engines

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
Parts = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def single() -> Parts:
    """A choice among float32 boxes: no result is float32 but one of TopK's."""
    nodes = [
        helper.make_node("TopK", ["features", "two"], ["best", "places"]),
        helper.make_node("Greater", ["features", "limit"], ["is_high"]),
        helper.make_node("Cast", ["is_high"], ["result"], to=FLOAT),
    ]
    constants = {"two": np.array([2], np.int64), "limit": np.float32(0.5)}
    return nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


def mixed() -> Parts:
    """The same behind a layer in half."""
    nodes, constants = single()
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = "wide" if name == "features" else name
    before = [
        helper.make_node("Cast", ["features"], ["narrow"], to=HALF),
        helper.make_node("Conv", ["narrow", "weight"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["wide"], to=FLOAT),
    ]
    weight = numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float16), "weight")
    return [*before, *nodes], [*constants, weight]


def quantized() -> Parts:
    """A convolution in int8 before opset 19: all else is float32."""
    pair = ["scale", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["features", *pair], ["small"]),
        helper.make_node("DequantizeLinear", ["small", *pair], ["rounded"]),
        helper.make_node("Conv", ["rounded", "weight"], ["result"]),
    ]
    constants = {"scale": np.float32(0.1), "zero": np.int8(0), "weight": np.ones((2, 2, 1, 1), np.float32)}
    return nodes, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


def model_of(parts: Parts) -> onnx.ModelProto:
    nodes, constants = parts
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("features", FLOAT, [1, 2, 4, 4])],
        [value("result", FLOAT, [1, 2, 4, 4])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("version", ["8.5.3.1", "8.6.1.6", "10.13.2.6"])
@pytest.mark.parametrize(
    ("parts", "precision"), [(single, "fp16"), (mixed, "fp16"), (single, "int8"), (quantized, "int8")]
)
def test_a_network_is_built_in_the_precision_of_its_graph(
    tmp_path: Path, version: str, parts: Callable[[], Parts], precision: Precision
) -> None:
    with engines.stand_ins(version):
        build = EngineBuild(open_tensorrt(), precision, tmp_path / "cache")
        assert build.plan("g", model_of(parts()), {})


def test_a_precision_that_is_allowed_where_the_graph_has_none_of_it_is_seen_by_the_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allow_all(trt: object, config: object, network: object, model: object) -> None:
        config.set_flag(trt.BuilderFlag.FP16)  # type: ignore[attr-defined]

    monkeypatch.setattr("deploy.tensorrt.build.set_precision", allow_all)
    with engines.stand_ins("8.6.1.6"):
        build = EngineBuild(open_tensorrt(), "fp16", tmp_path / "cache")
        with pytest.raises(EngineError, match="best: may run in half, though the graph has it in float32"):
            build.plan("g", model_of(single()), {})


def test_fp8_wants_a_tensorrt_and_a_gpu_that_have_it() -> None:
    hopper, ampere = Gpu("H200", "9.0"), Gpu("A100", "8.0")
    require_kernels("fp8", "10.13.2.6", hopper)
    require_kernels("fp8", "10.2.0", Gpu("L40S", "8.9"))
    require_kernels("int8", "8.5.3", ampere)
    with pytest.raises(
        EngineError, match=r"TensorRT 10.0.1 has no fp8 convolutions, expected TensorRT 10\.2 or"
    ):
        require_kernels("fp8", "10.0.1", hopper)
    with pytest.raises(
        EngineError, match=r"A100 has compute capability 8\.0, fp8 wants 8\.9 or newer; use int8"
    ):
        require_kernels("fp8", "10.13.2", ampere)
