"""The host-compiled arithmetic against torchvision's deform_conv2d."""

from __future__ import annotations

import ctypes
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deploy.plugin import library as kernels
from deploy.plugin.cases import Case, make, random_case, tap_maps, torchvision_answer
from deploy.plugin.library import DeformConvParams, PluginError, Sampling
from deploy.plugin.operators import Call, Grid

RANDOMS = st.randoms(use_true_random=False)
# Hypothesis tries some twice: this many are more than 500 different ones.
FIVE_HUNDRED = settings(max_examples=800, deadline=None)


def largest_difference(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    assert bool(found.isfinite().all()), "an output was not written"
    return float((found - expected).abs().max())


@pytest.mark.timeout(600)
@FIVE_HUNDRED
@given(random=RANDOMS)
def test_the_deformable_convolution_is_torchvisions(host_library: ctypes.CDLL, random: Random) -> None:
    case = random_case(random)
    tensors = make(case)
    call = Call.deform_conv2d(
        host_library,
        *(tensors.features, tensors.offsets, tensors.weight, tensors.bias, tensors.mask),
        grid=case.grid,
    )
    call.run_on_host()
    assert largest_difference(call.output(), torchvision_answer(case, tensors)) <= 1e-5


@pytest.mark.timeout(600)
@FIVE_HUNDRED
@given(random=RANDOMS)
def test_the_sampled_sum_of_per_tap_maps_is_torchvisions_convolution(
    host_library: ctypes.CDLL, random: Random
) -> None:
    case = random_case(random, groups=1, offset_groups=1)
    tensors = make(case)
    call = Call.sampled_sum(
        host_library, tap_maps(tensors), tensors.offsets, tensors.bias, tensors.mask, grid=case.grid
    )
    call.run_on_host()
    assert largest_difference(call.output(), torchvision_answer(case, tensors)) <= 1e-5


def test_offsets_that_are_no_number_or_infinite_see_nothing(host_library: ctypes.CDLL) -> None:
    features = torch.rand(1, 1, 4, 4) + 1
    offsets = torch.zeros(1, 2, 4, 4)
    offsets[0, 0, 0] = torch.tensor([float("nan"), float("inf"), float("-inf"), 3e38])
    call = Call.deform_conv2d(
        host_library,
        *(features, offsets, torch.ones(1, 1, 1, 1)),
        grid=Grid(kernel=(1, 1), padding=(0, 0)),
    )
    call.run_on_host()
    assert call.output()[0, 0, 0].tolist() == [0, 0, 0, 0]
    assert torch.equal(call.output()[0, 0, 1:], features[0, 0, 1:])


def test_a_sample_just_outside_still_sees_the_border_and_fades_to_zero(host_library: ctypes.CDLL) -> None:
    features = torch.full((1, 1, 2, 2), 8.0)
    offsets = torch.zeros(1, 2, 2, 2)
    offsets[0, 0, 0, 0], offsets[0, 0, 0, 1], offsets[0, 0, 1, 0] = -0.75, -1.0, 0.5
    call = Call.deform_conv2d(
        host_library,
        *(features, offsets, torch.ones(1, 1, 1, 1)),
        grid=Grid(kernel=(1, 1), padding=(0, 0)),
    )
    call.run_on_host()
    assert call.output()[0, 0].tolist() == [[2.0, 0.0], [4.0, 8.0]]


def test_relu_cuts_at_zero_after_the_bias(host_library: ctypes.CDLL) -> None:
    case = Case(Grid(), 1, (5, 6), 1, 1, 4, 8, True, True, 1.0, seed=3)
    tensors = make(case)
    call = Call.deform_conv2d(
        host_library,
        *(tensors.features, tensors.offsets, tensors.weight, tensors.bias, tensors.mask),
        grid=case.grid,
        relu=True,
    )
    call.run_on_host()
    assert bool((call.output() == 0).any())
    assert largest_difference(call.output(), torchvision_answer(case, tensors).relu()) <= 1e-5


def _params(**changes: int) -> DeformConvParams:
    sampling = {name: 1 for name, _ in Sampling._fields_} | {"height": 5, "width": 7}
    own = {"channels": 4, "out_channels": 6, "groups": 2}
    sampling |= {name: value for name, value in changes.items() if name in sampling}
    own |= {name: value for name, value in changes.items() if name not in sampling}
    return DeformConvParams(Sampling(**sampling), **own)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch": 0},
        {"channels": 0},
        {"stride_y": 0},
        {"pad_left": -1},
        {"channels": 5},
        {"out_channels": 5},
        {"offset_groups": 3},
        {"kernel_height": 8, "dilation_y": 2},
        {"height": 1 << 20, "width": 1 << 20},
        {"dilation_x": 1 << 30},
        {"type": 3},
        {"layout": 2},
        {"algorithm": 9},
        {"splits": -1},
        {"splits": 1025},
    ],
    ids=lambda changes: ",".join(f"{name}={value}" for name, value in changes.items()),
)
def test_parameters_without_sense_are_refused(host_library: ctypes.CDLL, changes: dict[str, int]) -> None:
    room = torch.zeros(4096)

    def status(params: DeformConvParams) -> int:
        addresses = [room.data_ptr()] * 6
        found: int = host_library.lstfe_deform_conv2d_host(ctypes.byref(params), *addresses)
        return found

    assert status(_params()) == kernels.OK
    assert status(_params(**changes)) == kernels.BAD_PARAMETERS


def test_a_missing_tensor_is_said_in_words(host_library: ctypes.CDLL) -> None:
    call = Call.sampled_sum(host_library, torch.ones(1, 2, 2, 9), torch.zeros(1, 18, 2, 2), grid=Grid())
    call.tensors[0] = None
    with pytest.raises(PluginError, match=r"^host reference: status 3: a tensor .* is null$"):
        call.run_on_host()
