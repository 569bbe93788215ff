from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from torchvision.ops import deform_conv2d

from deploy.plugin.suppression_cases import make, random_case, torchs_answer
from deploy.suppression import float32_threshold
from deploy.tensorrt_graphs.family import proposals_graph
from deploy.tensorrt_graphs.operators import (
    DOMAIN,
    attributes_of,
    declare_domain,
    expand_operators,
    sampled_sum,
    use_deform_conv_plugin,
)
from lstfe.config import Config, ModelConfig, ProposalConfig
from lstfe.model.methods import resolve_method
from lstfe.model.proposals import ProposalNetwork

Values = dict[str, np.ndarray]


def run(model: onnx.ModelProto, feed: Values) -> list[np.ndarray]:
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feed))


def one_node(
    op_type: str, domain: str, inputs: Values, result: int | None = None, **attributes: object
) -> onnx.ModelProto:
    node = helper.make_node(op_type, list(inputs), ["result"], domain=domain, **attributes)
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in inputs.items()
        if name != "bias"
    ]
    if result is None:
        result = helper.np_dtype_to_tensor_dtype(next(iter(inputs.values())).dtype)
    constants = [numpy_helper.from_array(inputs["bias"], "bias")] if "bias" in inputs else []
    graph = helper.make_graph(
        [node], "one_node", declared, [helper.make_tensor_value_info("result", result, None)], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    declare_domain(model)
    return model


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_sampled_sum_of_tap_maps_is_the_deformable_convolution(kernel_size: int) -> None:
    generator = torch.Generator().manual_seed(kernel_size)
    features = torch.randn((2, 5, 7, 9), generator=generator)
    weight = torch.randn((4, 5, kernel_size, kernel_size), generator=generator)
    offsets = torch.randn((2, 2 * kernel_size**2, 7, 9), generator=generator) * 3
    bias = torch.randn(4, generator=generator)
    maps = torch.einsum("nchw,ockl->nhwklo", features, weight).flatten(3)
    expected = deform_conv2d(features, offsets, weight, bias, padding=kernel_size // 2)
    torch.testing.assert_close(sampled_sum(maps, offsets, bias, kernel_size), expected, atol=1e-5, rtol=1e-5)


def test_the_operator_for_the_exporter_keeps_torch_s_rules_for_operators() -> None:
    arguments = (torch.rand(1, 4, 5, 18), torch.randn(1, 18, 4, 5), torch.rand(2), 3)
    torch.library.opcheck(
        torch.ops.lstfe.sampled_sum.default, arguments, test_utils=("test_schema", "test_faketensor")
    )


@pytest.mark.parametrize(
    ("kernel_size", "dtype", "tolerance"),
    [(3, np.float32, 1e-5), (1, np.float32, 1e-5), (3, np.float16, 2e-3)],
)
def test_an_expanded_sampled_sum_gives_what_the_operator_gives(
    kernel_size: int, dtype: type, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn((2, 5, 8, 6 * kernel_size**2), generator=generator).numpy().astype(dtype)
    offsets = (torch.randn((2, 2 * kernel_size**2, 5, 8), generator=generator) * 4).numpy()
    bias = torch.randn(6, generator=generator).numpy()
    model = one_node(
        "LstfeSampledSum",
        DOMAIN,
        {"maps": maps, "offsets": offsets, "bias": bias},
        kernel_shape=[kernel_size] * 2,
        has_bias=1,
    )
    [found] = run(expand_operators(model), {"maps": maps, "offsets": offsets})
    wanted = sampled_sum(
        torch.from_numpy(maps).float(), torch.from_numpy(offsets), torch.from_numpy(bias), kernel_size
    )
    assert found.dtype == dtype
    np.testing.assert_allclose(found, wanted.numpy(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("optional", [(), ("bias",), ("mask",), ("bias", "mask")])
def test_a_deform_conv_comes_back_from_the_plugin_as_it_was(optional: tuple[str, ...]) -> None:
    generator = np.random.default_rng(1)
    shapes = {
        "features": (1, 4, 6, 7),
        "weight": (6, 2, 3, 3),
        "offsets": (1, 36, 6, 7),
        "bias": (6,),
        "mask": (1, 18, 6, 7),
    }
    names = [
        "features",
        "weight",
        "offsets",
        *(name if name in optional else "" for name in ("bias", "mask")),
    ]
    values = {name: generator.standard_normal(shapes[name], np.float32) for name in names if name}
    node = helper.make_node("DeformConv", names, ["result"], group=2, offset_group=2, pads=[1] * 4)
    graph = helper.make_graph(
        [node],
        "deform",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
            for name, value in values.items()
        ],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 6, 6, 7])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    [expected] = run(model, values)

    use_deform_conv_plugin(model)
    [plugin] = model.graph.node
    assert (plugin.domain, plugin.op_type) == ("lstfe", "LstfeDeformConv2d")
    assert list(plugin.input) == [name for name in names if name]
    attributes = attributes_of(plugin)
    assert attributes["plugin_namespace"] == b"lstfe"
    assert (attributes["has_bias"], attributes["has_mask"]) == ("bias" in optional, "mask" in optional)
    onnx.checker.check_model(model)
    [found] = run(expand_operators(model), values)
    np.testing.assert_array_equal(found, expected)


def test_a_relu_in_the_plugin_s_node_is_kept_in_the_expansion() -> None:
    values = {
        "features": np.ones((1, 1, 3, 3), np.float32),
        "weight": -np.ones((1, 1, 1, 1), np.float32),
        "offsets": np.zeros((1, 2, 3, 3), np.float32),
    }
    model = one_node("LstfeDeformConv2d", DOMAIN, values, relu=1)
    assert (run(expand_operators(model), values)[0] == 0).all()


@pytest.mark.parametrize("image_size", [(64, 96), (16, 16), (32, 40)])
def test_the_expanded_proposals_are_those_of_the_proposal_network(
    tiny: Callable[..., ModelConfig], image_size: tuple[int, int]
) -> None:
    model_config = tiny(proposals={"min_size_px": 4.0, "current_top_k": 20})
    config = resolve_method(Config(model=model_config))
    network = ProposalNetwork(4, config.model.backbone.feature_stride, config.model.proposals)
    generator = torch.Generator().manual_seed(image_size[0])
    cells = tuple(side // 8 for side in image_size)
    objectness = torch.randn((1, 6, *cells), generator=generator)
    box_deltas = torch.randn((1, 24, *cells), generator=generator)
    # The image ends inside the map: the padding's anchors must not be proposed.
    inside = (image_size[0] - 5, image_size[1] - 3)
    expected = network.propose(objectness, box_deltas, [inside], top_k=20)
    boxes, valid = run(
        expand_operators(proposals_graph(config, 20)),
        {
            "objectness": objectness.numpy(),
            "box_deltas": box_deltas.numpy(),
            "image_size": np.array(inside, np.int32),
        },
    )
    assert valid.dtype == np.bool_
    np.testing.assert_array_equal(valid, expected.valid)
    np.testing.assert_allclose(boxes, expected.boxes, atol=1e-4)
    assert expected.valid.any()


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("seed", range(6))
def test_the_expanded_suppression_keeps_what_pytorch_does(opset: int, seed: int) -> None:
    case = random_case(Random(seed))
    boxes, scores = make(case)
    values = {"boxes": boxes.numpy(), "scores": scores.numpy()}
    model = one_node(
        *("LstfeSuppression", DOMAIN, values, TensorProto.INT32),
        nms_iou=float32_threshold(case.nms_iou),
        score_threshold=case.score_threshold,
        max_kept=case.max_kept,
    )
    model.opset_import[0].version = opset
    [found] = run(expand_operators(model), values)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, torchs_answer(case, boxes, scores))


def test_the_proposals_node_says_what_the_configuration_says() -> None:
    proposals = ProposalConfig(pre_nms_top_k=6000, nms_iou=0.6, min_size_px=0.0, current_top_k=300)
    config = resolve_method(Config(model=ModelConfig(proposals=proposals)))
    model = proposals_graph(config, 17)
    node, cast = model.graph.node
    attributes = attributes_of(node)
    assert (node.op_type, cast.op_type) == ("LstfeProposals", "Cast")
    assert list(node.input) == ["objectness", "box_deltas", "cell_anchors", "image_size"]
    assert attributes["stride"] == config.model.backbone.feature_stride
    assert attributes["pre_nms_top_k"] == 6000
    assert attributes["post_nms_top_k"] == 300
    assert attributes["nms_iou"] == pytest.approx(0.6)
    assert attributes["min_size_px"] == pytest.approx(1e-3)  # a box of no extent is never proposed
    onnx.checker.check_model(model)
