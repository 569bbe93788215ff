"""Region proposals, the host reference and the kernels run on the CPU, against the model's own, to the last bit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deploy.export_onnx import ProposalsGraph
from deploy.plugin import library as kernels
from deploy.plugin.library import PluginError
from deploy.plugin.operators import Pair
from deploy.plugin.proposal_cases import Maps, ProposalCase, frame_case, make, models_answer, random_case
from deploy.plugin.proposals import ProposalCall
from lstfe import boxes as box_geometry
from lstfe.config import ProposalConfig
from lstfe.model.detector import LSTFENet
from lstfe.model.proposals import flatten_maps

from .conftest import assert_small_workspace_is_refused, run_watched

RANDOMS = st.randoms(use_true_random=False)


def prepare(library: ctypes.CDLL, case: ProposalCase, maps: Maps) -> ProposalCall:
    return ProposalCall.prepare(
        library,
        *(maps.objectness, maps.box_deltas, case.network().cell_anchors, torch.tensor(case.image_size)),
        stride=case.stride,
        pre_nms_top_k=case.config.pre_nms_top_k,
        post_nms_top_k=case.top_k,
        nms_iou=case.config.nms_iou,
        min_size_px=case.config.min_size_px,
    )


def assert_models(call: ProposalCall, case: ProposalCase, maps: Maps) -> None:
    expected = models_answer(case, maps)
    assert torch.equal(call.valid, expected.valid.int())
    assert torch.equal(call.boxes, expected.boxes)


EMPTY = {"an image beside the map": {"image_size": (1, 1)}, "one anchor": {"size": (1, 1), "top_k": 5}}


@pytest.mark.parametrize("fixed", EMPTY.values(), ids=EMPTY)
def test_where_there_are_no_or_few_boxes_the_rest_is_zero(
    emulated_library: ctypes.CDLL, fixed: dict[str, Any]
) -> None:
    config = ProposalConfig(anchor_sizes=(16.0,), anchor_ratios=(1.0,), min_size_px=2.0)
    case = replace(frame_case((9, 11), pre_nms_top_k=6000, top_k=300), config=config, **fixed)
    maps = make(case)
    for run in (ProposalCall.run_on_host, run_watched):
        call = prepare(emulated_library, case, maps)
        run(call)
        assert int(call.valid.sum()) < 2
        assert_models(call, case, maps)


def test_boxes_that_overlap_by_the_threshold_itself_are_decided_on_as_by_the_model(
    emulated_library: ctypes.CDLL,
) -> None:
    # 5 x 1 pixels of an image, and 1.5 x 1 of them again: an IoU of 0.3, which no float is.
    config = ProposalConfig(anchor_sizes=(4.0, 16.0), anchor_ratios=(0.5, 1.0), nms_iou=0.3, pre_nms_top_k=7)
    case = ProposalCase(
        config, size=(6, 2), stride=1, image_size=(5, 1), top_k=20, levels=50, spread=0.0, seed=0
    )
    maps = make(case)
    for run in (ProposalCall.run_on_host, run_watched):
        call = prepare(emulated_library, case, maps)
        run(call)
        assert_models(call, case, maps)


@pytest.mark.timeout(600)
@settings(max_examples=200, deadline=None)
@given(random=RANDOMS)
def test_the_host_reference_proposes_what_the_model_does(host_library: ctypes.CDLL, random: Random) -> None:
    case = random_case(random)
    maps = make(case)
    call = prepare(host_library, case, maps)
    call.run_on_host()
    assert_models(call, case, maps)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=40, deadline=None)
@given(random=RANDOMS)
def test_the_kernels_propose_what_the_model_does(emulated_library: ctypes.CDLL, random: Random) -> None:
    case = random_case(random, max_side=20)
    maps = make(case)
    call = prepare(emulated_library, case, maps)
    run_watched(call)
    assert_models(call, case, maps)


# The second has more anchors than all blocks look at in one go.
@pytest.mark.slow
@pytest.mark.parametrize(("size", "pre_nms_top_k"), [((38, 63), 6000), ((90, 101), 500)])
def test_a_whole_frame_of_the_detector_is_the_models(
    emulated_library: ctypes.CDLL, size: Pair, pre_nms_top_k: int
) -> None:
    case = frame_case(size, pre_nms_top_k=pre_nms_top_k, top_k=300)
    maps = make(case)
    for run in (ProposalCall.run_on_host, run_watched):
        call = prepare(emulated_library, case, maps)
        run(call)
        assert int(call.valid.sum()) == 300
        assert_models(call, case, maps)


def distinct(maps: Maps, seed: int) -> Maps:
    """Replace the logits by ones without ties, which torch.topk breaks as it likes."""
    order = torch.randperm(maps.objectness.numel(), generator=torch.Generator().manual_seed(seed))
    return replace(maps, objectness=order.view(maps.objectness.shape).float() / 100 - 5)


@pytest.mark.parametrize("seed", range(8))
def test_the_exported_graph_is_the_same_operator(host_library: ctypes.CDLL, seed: int) -> None:
    case = random_case(Random(seed), max_side=20)
    maps = distinct(make(case), seed)
    model = cast(LSTFENet, SimpleNamespace(proposal_network=case.network()))
    boxes, valid = ProposalsGraph(model, case.top_k)(
        maps.objectness, maps.box_deltas, torch.tensor(case.image_size)
    )
    call = prepare(host_library, case, maps)
    call.run_on_host()
    assert torch.equal(call.valid.bool(), valid)
    assert torch.equal(call.boxes, boxes)


def test_any_box_deltas_decode_to_the_models_boxes_within_rounding(host_library: ctypes.CDLL) -> None:
    case = replace(
        frame_case((12, 17), pre_nms_top_k=4000, top_k=4000), config=ProposalConfig(nms_iou=1.0), levels=10**6
    )
    deltas = torch.randn(make(case).box_deltas.shape, generator=torch.Generator().manual_seed(1))
    maps = Maps(make(case).objectness, deltas)
    call = prepare(host_library, case, maps)
    call.run_on_host()
    logits, flat = (part[0] for part in flatten_maps(maps.objectness, maps.box_deltas))
    best = logits.sort(descending=True, stable=True).indices
    anchors = case.network().anchors(case.size)[best]
    boxes = box_geometry.clip_to_image(
        box_geometry.decode(flat[best], anchors, (1.0, 1.0, 1.0, 1.0)), case.image_size
    )
    large = ((boxes[:, 2:] - boxes[:, :2]) > 1e-3).all(dim=1)
    found = call.boxes[0][call.valid[0].bool()]
    assert 2000 < len(found) < 12 * 17 * 15  # some are outside
    torch.testing.assert_close(found, boxes[large], rtol=1e-6, atol=1e-4)


def test_equal_logits_keep_the_order_of_rows_columns_anchors(emulated_library: ctypes.CDLL) -> None:
    config = ProposalConfig(
        anchor_sizes=(2.0,), anchor_ratios=(1.0, 2.0), nms_iou=1.0, pre_nms_top_k=5, min_size_px=0.5
    )
    case = ProposalCase(config, (4, 3), 8, (32, 24), 6, levels=1, spread=0.0, seed=0)
    call = prepare(emulated_library, case, make(case))
    run_watched(call)
    assert call.valid.tolist() == [[1, 1, 1, 1, 1, 0]]
    torch.testing.assert_close(call.boxes[0, :5], case.network().anchors(case.size)[:5])


def not_a_number(maps: Maps) -> Maps:
    objectness, deltas = maps.objectness.clone(), maps.box_deltas.clone()
    objectness[0, :, 0] = float("nan")
    deltas[0, :, 1] = float("nan")
    deltas[0, 1, 2] = float("inf")
    return Maps(objectness, deltas)


def test_what_is_no_number_takes_no_part(emulated_library: ctypes.CDLL) -> None:
    case = replace(frame_case((4, 5), pre_nms_top_k=100, top_k=100), spread=0.0)
    maps = make(case)
    for run in (ProposalCall.run_on_host, run_watched):
        call = prepare(emulated_library, case, not_a_number(maps))
        run(call)
        number = int(call.valid.sum())
        assert 10 < number < 100
        assert bool(call.boxes.isfinite().all())
        quiet = Maps(maps.objectness.clone(), maps.box_deltas.clone())
        quiet.objectness[0, :, 0] = -1e30  # last instead of not at all
        quiet.box_deltas[0, :, 1] = 1e30  # outside of the image
        quiet.box_deltas[0, 1, 2] = 1e30
        assert torch.equal(call.boxes[0, :number], models_answer(case, quiet).boxes[0, :number])


def test_infinite_logits_are_first_and_last(emulated_library: ctypes.CDLL) -> None:
    case = replace(frame_case((2, 2), pre_nms_top_k=60, top_k=60), spread=0.0)
    maps = make(case)
    maps.objectness[0, 3, 1, 0] = float("inf")
    maps.objectness[0, 4, 1, 1] = float("-inf")
    call = prepare(emulated_library, case, maps)
    run_watched(call)
    assert_models(call, case, maps)


Change = Callable[[ProposalCall], None]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("anchors", 0), ("height", 0), ("width", -1), ("width", 1 << 20), ("pre_nms_top_k", 0)),
        *(("pre_nms_top_k", 16385), ("post_nms_top_k", 0), ("post_nms_top_k", 16385), ("stride", 0.0)),
        *(("nms_iou", -0.1), ("nms_iou", 1.1), ("nms_iou", float("nan")), ("min_size_px", -1.0)),
    ],
)
def test_parameters_without_sense_are_refused(emulated_library: ctypes.CDLL, name: str, value: float) -> None:
    case = frame_case((300, 3), pre_nms_top_k=10, top_k=10)
    call = prepare(emulated_library, case, make(case))
    setattr(call.params, name, value)
    assert call.status() == kernels.BAD_PARAMETERS
    assert emulated_library.lstfe_proposals_workspace(ctypes.byref(call.params)) == 0
    with pytest.raises(PluginError, match=r"^proposals: status 1: a number is out of its range"):
        call.run_on_host()


def test_too_small_a_workspace_is_refused_before_anything_runs(emulated_library: ctypes.CDLL) -> None:
    case = frame_case((3, 3), pre_nms_top_k=10, top_k=10)
    call = prepare(emulated_library, case, make(case))
    assert_small_workspace_is_refused(call, call.valid, "proposals")


def test_the_workspace_is_bounded_and_grows_with_every_size(emulated_library: ctypes.CDLL) -> None:
    def size(**changes: Any) -> int:
        case = frame_case((38, 63), pre_nms_top_k=6000, top_k=300)
        call = prepare(emulated_library, replace(case, size=(1, 1)), make(replace(case, size=(1, 1))))
        numbers = {"height": 38, "width": 63} | changes
        for name, value in numbers.items():
            setattr(call.params, name, value)
        found: int = emulated_library.lstfe_proposals_workspace(ctypes.byref(call.params))
        return found

    for name, values in {"height": (1, 9, 38, 60), "width": (1, 63), "pre_nms_top_k": (1, 64, 6000)}.items():
        sizes = [size(**{name: value}) for value in values]
        assert sizes == sorted(sizes)
    assert 4.5e6 < size() < 5e6  # 6000 rows of 94 words of 8 bytes, and little else
    assert size(height=380) == size()  # the table does not grow with the map


def test_a_missing_tensor_is_said_in_words(host_library: ctypes.CDLL) -> None:
    case = frame_case((3, 3), pre_nms_top_k=10, top_k=10)
    call = prepare(host_library, case, make(case))
    call.inputs[3] = Tensor()
    with pytest.raises(PluginError, match=r"^proposals: status 3: a tensor .* is null$"):
        call.run_on_host()
