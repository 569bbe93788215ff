"""Suppression class by class, the host reference and the kernel run on the CPU, against PyTorch's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deploy.plugin import library as kernels
from deploy.plugin.library import PluginError
from deploy.plugin.suppression import SuppressionCall
from deploy.plugin.suppression_cases import SuppressionCase, frame_case, make, random_case, torchs_answer

from .conftest import assert_small_workspace_is_refused, run_watched

RANDOMS = st.randoms(use_true_random=False)
Run = Callable[[SuppressionCall], None]


def prepare(library: ctypes.CDLL, case: SuppressionCase, boxes: Tensor, scores: Tensor) -> SuppressionCall:
    return SuppressionCall.prepare(
        library,
        *(boxes, scores),
        nms_iou=case.nms_iou,
        score_threshold=case.score_threshold,
        max_kept=case.max_kept,
    )


BOTH = pytest.mark.parametrize("run", [SuppressionCall.run_on_host, run_watched], ids=["host", "kernel"])


@pytest.mark.timeout(600)
@settings(max_examples=200, deadline=None)
@given(random=RANDOMS)
def test_the_host_reference_keeps_what_pytorch_does(host_library: ctypes.CDLL, random: Random) -> None:
    case = random_case(random)
    boxes, scores = make(case)
    call = prepare(host_library, case, boxes, scores)
    call.run_on_host()
    assert torch.equal(call.marks, torchs_answer(case, boxes, scores))


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=40, deadline=None)
@given(random=RANDOMS)
def test_the_kernel_keeps_what_pytorch_does(emulated_library: ctypes.CDLL, random: Random) -> None:
    case = random_case(random)
    boxes, scores = make(case)
    call = prepare(emulated_library, case, boxes, scores)
    run_watched(call)
    assert torch.equal(call.marks, torchs_answer(case, boxes, scores))


@pytest.mark.slow
@BOTH
def test_a_whole_frame_of_the_detector_is_pytorchs(emulated_library: ctypes.CDLL, run: Run) -> None:
    case = frame_case(classes=30, boxes=300)
    boxes, scores = make(case)
    call = prepare(emulated_library, case, boxes, scores)
    run(call)
    assert torch.equal(call.marks, torchs_answer(case, boxes, scores))
    assert int(call.marks.sum(dim=1).max()) == case.max_kept


@BOTH
def test_an_overlap_of_the_threshold_itself_is_decided_on_as_by_pytorch(
    emulated_library: ctypes.CDLL, run: Run
) -> None:
    # 2 of 5 pixels: as a float32 that is above the threshold of 0.4, and so is the threshold's own float32.
    case = replace(frame_case(classes=1, boxes=2), nms_iou=0.4)
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 5.0], [0.0, 3.0, 1.0, 5.0]]])
    call = prepare(emulated_library, case, boxes, torch.tensor([[0.8, 0.9]]))
    run(call)
    assert call.marks.tolist() == torchs_answer(case, boxes, torch.tensor([[0.8, 0.9]])).tolist() == [[0, 1]]


@BOTH
def test_what_is_no_number_takes_no_part(emulated_library: ctypes.CDLL, run: Run) -> None:
    case = replace(frame_case(classes=2, boxes=70), side=1000)
    boxes, scores = make(case)
    quiet = scores.clone()
    for coordinate in range(4):
        boxes[0, coordinate, coordinate] = float("nan")
        quiet[0, coordinate] = 0.0
    scores[1, 66] = float("nan")
    quiet[1, 66] = 0.0
    call = prepare(emulated_library, case, boxes, scores)
    run(call)
    assert torch.equal(call.marks, torchs_answer(case, boxes, quiet))


@BOTH
def test_infinite_scores_are_first_and_equal_ones_in_order(emulated_library: ctypes.CDLL, run: Run) -> None:
    case = replace(frame_case(classes=1, boxes=5), score_threshold=-1.0, max_kept=3)
    boxes = torch.arange(5.0)[None, :, None] * 10 + torch.tensor([0.0, 0.0, 5.0, 5.0])  # side by side
    call = prepare(emulated_library, case, boxes, torch.tensor([[-0.0, 0.0, -2.0, 0.0, float("inf")]]))
    run(call)
    assert call.marks.tolist() == [[1, 1, 0, 0, 1]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("classes", 0), ("classes", 1 << 23), ("boxes", 0), ("boxes", 16385), ("max_kept", 0)),
        *(("max_kept", (1 << 26) + 1), ("nms_iou", -0.1), ("nms_iou", 1.1), ("nms_iou", float("nan"))),
        ("score_threshold", float("nan")),
    ],
)
def test_parameters_without_sense_are_refused(emulated_library: ctypes.CDLL, name: str, value: float) -> None:
    case = frame_case(classes=2, boxes=10)
    call = prepare(emulated_library, case, *make(case))
    setattr(call.params, name, value)
    assert call.status() == kernels.BAD_PARAMETERS
    assert emulated_library.lstfe_suppression_workspace(ctypes.byref(call.params)) == 0
    with pytest.raises(PluginError, match=r"^suppression: status 1: a number is out of its range"):
        call.run_on_host()


def test_too_small_a_workspace_is_refused_before_anything_runs(emulated_library: ctypes.CDLL) -> None:
    case = frame_case(classes=3, boxes=100)
    call = prepare(emulated_library, case, *make(case))
    assert call.workspace is not None
    assert call.workspace.nbytes >= 3 * 100 * 20  # a box and an index each
    assert_small_workspace_is_refused(call, call.marks, "suppression")


def test_a_missing_tensor_is_said_in_words(host_library: ctypes.CDLL) -> None:
    case = frame_case(classes=1, boxes=3)
    call = prepare(host_library, case, *make(case))
    call.inputs[1] = Tensor()
    with pytest.raises(PluginError, match=r"^suppression: status 3: a tensor .* is null$"):
        call.run_on_host()
