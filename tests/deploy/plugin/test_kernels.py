"""The CUDA kernels themselves, run on the CPU by cuda_on_host.h, against torchvision's deform_conv2d."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deploy.plugin import library as kernels
from deploy.plugin.cases import Case, Tensors, make, random_case, tap_maps, torchvision_answer
from deploy.plugin.library import DeformConvParams
from deploy.plugin.operators import Call, Grid
from lstfe.model import alignment

RANDOMS = st.randoms(use_true_random=False)
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Of the error's norm: rounding once after blending and once at the end makes about a third of it."""

STORED = [
    (torch.float32, kernels.NCHW),
    (torch.float16, kernels.NCHW),
    (torch.float16, kernels.NHWC),
    (torch.bfloat16, kernels.NHWC),
]
TILES = [kernels.TILE_64X64, kernels.TILE_128X128, kernels.TILE_128X256]
HALVES = [torch.float16, torch.bfloat16]

Run = Callable[[Call], Tensor]


@pytest.fixture(scope="module")
def run(emulated_library: ctypes.CDLL) -> Run:
    """Run a call whose loads must stay inside its own tensors."""

    def run_watched(call: Call) -> Tensor:
        for tensor in (*call.tensors, call.workspace):
            if tensor is not None:
                emulated_library.cuda_on_host_allow(
                    ctypes.c_void_p(tensor.data_ptr()), ctypes.c_size_t(tensor.nbytes)
                )
        call.run()
        emulated_library.cuda_on_host_allow(None, ctypes.c_size_t(0))
        return call.output().float()

    return run_watched


def deform(library: ctypes.CDLL, case: Case, tensors: Tensors, **options: int) -> Call:
    return Call.deform_conv2d(
        library,
        *(tensors.features, tensors.offsets, tensors.weight, tensors.bias, tensors.mask),
        grid=case.grid,
        **options,  # type: ignore[arg-type]
    )


def assert_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert found.shape == expected.shape
    assert bool(found.isfinite().all()), "an output was not written, or is made of what was never loaded"
    error, size = float((found - expected).norm()), float(expected.norm())
    smallest = 1e-6 * expected.numel() ** 0.5  # float16 has no finer steps near zero
    assert error <= TOLERANCE[dtype] * size + smallest, f"{error} of {size}"


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "layout"), STORED)
@settings(max_examples=40, deadline=None)
@given(random=RANDOMS)
def test_the_simple_kernel_does_every_shape(
    emulated_library: ctypes.CDLL, run: Run, dtype: torch.dtype, layout: int, random: Random
) -> None:
    case = random_case(random, max_side=12)
    tensors = make(case).to(dtype)
    call = deform(emulated_library, case, tensors, layout=layout, algorithm=kernels.SIMPLE)
    assert_close(run(call), torchvision_answer(case, tensors), dtype)


def tile_case(random: Random) -> Case:
    """Draw a case that the tensor-core kernel takes: vectors of 8 channels, 32 a step where offsets have groups."""
    groups, offset_groups = random.choice([(1, 1), (1, 1), (2, 1), (1, 2), (2, 2)])
    channels = random.choice([32, 64] if offset_groups > 1 else [8, 40, 64])
    return random_case(
        random,
        max_side=12,
        kernels=((1, 1), (3, 3), (2, 3)),
        batch=random.randint(1, 2),
        groups=groups,
        offset_groups=offset_groups,
        channels_per_group=channels,
        out_channels_per_group=random.choice([8, 24, 72]),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("algorithm", TILES)
@settings(max_examples=12, deadline=None)
@given(random=RANDOMS)
def test_the_tensor_core_kernel_does_every_shape_it_takes(
    emulated_library: ctypes.CDLL, run: Run, dtype: torch.dtype, algorithm: int, random: Random
) -> None:
    case = tile_case(random)
    tensors = make(case).to(dtype)
    call = deform(
        emulated_library,
        case,
        tensors,
        layout=kernels.NHWC,
        algorithm=algorithm,
        splits=random.choice([0, 1, 3]),
        relu=random.random() < 0.5,
    )
    expected = torchvision_answer(case, tensors)
    assert_close(run(call), expected.relu() if call.params.relu else expected, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "layout"), STORED)
@settings(max_examples=20, deadline=None)
@given(random=RANDOMS)
def test_the_sampled_sum_is_torchvisions_convolution(
    emulated_library: ctypes.CDLL,
    run: Run,
    dtype: torch.dtype,
    layout: int,
    random: Random,
) -> None:
    channels = random.choice([5, 8, 264])
    case = random_case(random, max_side=12, groups=1, offset_groups=1, out_channels_per_group=channels)
    tensors = make(case)
    call = Call.sampled_sum(
        emulated_library,
        *(tap_maps(tensors).to(dtype), tensors.offsets, tensors.bias, tensors.mask),
        grid=case.grid,
        layout=layout,
    )
    assert_close(run(call), torchvision_answer(case, tensors), dtype)


def plain_case(channels: int = 64) -> Case:
    return Case(Grid(), 1, (9, 10), 1, 1, channels, 32, True, True, 1.0, seed=5)


@pytest.fixture
def device(emulated_library: ctypes.CDLL) -> Iterator[Callable[[int, int, bool], None]]:
    """Change the emulated device: multiprocessors, shared memory of a block, Ampere or newer."""
    yield emulated_library.cuda_on_host_device
    emulated_library.cuda_on_host_device(4, 100 * 1024, True)


def test_splitting_the_sum_needs_workspace_and_changes_only_the_last_bits(
    emulated_library: ctypes.CDLL, run: Run
) -> None:
    case = plain_case()
    tensors = make(case).to(torch.float16)
    options = {"layout": kernels.NHWC, "algorithm": kernels.TILE_64X64}
    split = deform(emulated_library, case, tensors, splits=3, **options)
    whole = deform(emulated_library, case, tensors, splits=1, **options)
    assert split.workspace is not None
    assert split.workspace.numel() == 3 * 4 * 90 * 32
    assert whole.workspace is None
    starved = deform(emulated_library, case, tensors, splits=3, **options)
    starved.workspace = torch.empty(3 * 4 * 90 * 32 - 1, dtype=torch.uint8)
    alone = deform(emulated_library, case, tensors, splits=3, **options)
    alone.workspace = None
    results = [run(call) for call in (whole, alone, split, starved)]
    assert torch.equal(results[0], results[1])
    for result in results:
        assert_close(result, torchvision_answer(case, tensors), torch.float16)


def test_the_workspace_of_the_largest_map_is_enough_for_all_smaller_ones(
    emulated_library: ctypes.CDLL,
) -> None:
    params = DeformConvParams(Grid().sampling(1, (1, 1), 1), 256, 256, 1, 0, kernels.FLOAT16, kernels.NHWC)
    sizes = []
    for height in range(1, 200):
        params.sampling.height = params.sampling.width = height
        sizes.append(emulated_library.lstfe_deform_conv2d_workspace(ctypes.byref(params)))
    assert sizes == sorted(sizes)
    assert sizes[37] == 8 * 38 * 38 * 256 * 4  # eight partial sums in float32
    assert sizes[-1] == 64 * 2**20  # and no more than this


def test_the_choice_keeps_all_multiprocessors_busy(
    emulated_library: ctypes.CDLL, device: Callable[[int, int, bool], None]
) -> None:
    grid = Grid(kernel=(1, 1), padding=(0, 0))
    case = replace(plain_case(8), grid=grid, size=(16, 16), out_channels_per_group=256)
    call = deform(emulated_library, case, make(case).to(torch.float16), layout=kernels.NHWC, splits=1)
    blocks = []
    for multiprocessors in (1, 2, 4, 16, 1000):  # 256 cells, 256 output channels
        device(multiprocessors, 100 * 1024, True)
        call.run()
        blocks.append(emulated_library.cuda_on_host_blocks())
    assert blocks == [2, 2, 4, 16, 16]


def test_a_long_sum_over_few_tiles_is_shared_by_several_blocks(
    emulated_library: ctypes.CDLL, run: Run, device: Callable[[int, int, bool], None]
) -> None:
    case = plain_case(512)
    tensors = make(case).to(torch.float16)
    device(64, 100 * 1024, True)
    shared = deform(emulated_library, case, tensors, layout=kernels.NHWC)
    alone = deform(emulated_library, case, tensors, layout=kernels.NHWC, splits=1)
    results = [run(call) for call in (shared, alone)]
    assert not torch.equal(results[0], results[1])  # sums of sums round differently
    for result in results:
        assert_close(result, torchvision_answer(case, tensors), torch.float16)


@pytest.mark.parametrize(
    ("dtype", "channels", "shared_kib", "is_ampere", "what"),
    [
        (torch.bfloat16, 64, 64, False, "Turing has no bfloat16 tensor cores"),
        (torch.float16, 63, 100, True, "channels are no whole vectors"),
        (torch.float16, 64, 48, True, "too little shared memory"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else None,
)
def test_what_the_tensor_cores_cannot_do_the_simple_kernel_does(
    emulated_library: ctypes.CDLL,
    device: Callable[[int, int, bool], None],
    dtype: torch.dtype,
    channels: int,
    shared_kib: int,
    is_ampere: bool,
    what: str,
) -> None:
    device(4, shared_kib * 1024, is_ampere)
    case = plain_case(channels)
    tensors = make(case).to(dtype)
    forced = deform(emulated_library, case, tensors, layout=kernels.NHWC, algorithm=kernels.TILE_128X128)
    assert forced.status() == kernels.NOT_SUPPORTED, what
    automatic = deform(emulated_library, case, tensors, layout=kernels.NHWC)
    device(4, 20 * 1024, is_ampere)  # not even the smallest tile fits
    automatic.run()
    assert_close(automatic.output().float(), torchvision_answer(case, tensors), dtype)


def test_turing_uses_its_tensor_cores_for_half_precision(
    emulated_library: ctypes.CDLL, device: Callable[[int, int, bool], None]
) -> None:
    device(4, 64 * 1024, False)
    case = plain_case()
    tensors = make(case).to(torch.float16)
    call = deform(emulated_library, case, tensors, layout=kernels.NHWC, algorithm=kernels.TILE_128X128)
    assert call.status() == kernels.OK
    assert_close(call.output().float(), torchvision_answer(case, tensors), torch.float16)


def test_a_tensor_that_starts_between_vectors_takes_the_simple_kernel(
    emulated_library: ctypes.CDLL, run: Run
) -> None:
    case = plain_case()
    tensors = make(case).to(torch.float16)
    call = deform(emulated_library, case, tensors, layout=kernels.NHWC)
    features = call.tensors[0]
    assert features is not None
    shifted = torch.empty(features.numel() + 1, dtype=features.dtype)[1:].view(features.shape)
    call.tensors[0] = shifted.copy_(features)
    assert_close(run(call), torchvision_answer(case, tensors), torch.float16)
    call.params.algorithm = kernels.TILE_64X64
    assert call.status() == kernels.NOT_SUPPORTED


def test_far_samples_do_not_let_infinite_maps_in(emulated_library: ctypes.CDLL, run: Run) -> None:
    maps = torch.full((1, 3, 3, 8), float("inf"))
    offsets = torch.full((1, 2, 3, 3), 100.0)
    grid = Grid(kernel=(1, 1), padding=(0, 0))
    for layout in (kernels.NCHW, kernels.NHWC):
        found = run(Call.sampled_sum(emulated_library, maps.half(), offsets, grid=grid, layout=layout))
        assert torch.equal(found, torch.zeros(1, 8, 3, 3))


@pytest.mark.parametrize("algorithm", [kernels.SIMPLE, *TILES])
def test_an_infinite_feature_reaches_only_who_looks_at_it(
    emulated_library: ctypes.CDLL, run: Run, algorithm: int
) -> None:
    case = replace(plain_case(), size=(8, 8), has_mask=False)
    tensors = make(case).to(torch.float16)
    tensors = replace(tensors, offsets=torch.full_like(tensors.offsets, 0.25))
    tensors.features[0, 0, 0, 0] = float("inf")
    call = deform(emulated_library, case, tensors, layout=kernels.NHWC, algorithm=algorithm)
    finite = torchvision_answer(case, tensors).isfinite()
    assert torch.equal(run(call).isfinite(), finite)
    assert int((~finite).any(dim=1).sum()) == 4  # cells of the output


def test_the_sampled_sum_of_the_model_is_this_one(emulated_library: ctypes.CDLL, run: Run) -> None:
    case = Case(Grid(), 2, (7, 9), 1, 1, 16, 24, False, False, 1.5, seed=8)
    tensors = make(case)
    taps = alignment.tap_maps(tensors.features, tensors.weight)
    call = Call.sampled_sum(emulated_library, tap_maps(tensors), tensors.offsets, grid=case.grid)
    torch.testing.assert_close(run(call), alignment.sampled_sum(taps, tensors.offsets, case.size, 3))
