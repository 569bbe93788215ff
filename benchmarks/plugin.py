"""The plugin's kernels on this machine's GPU: right, and how fast: `python -m benchmarks.plugin docs/benchmarks`.

Builds the kernels for the GPU at hand, holds them to torchvision in float64 and to the model, times them beside
torchvision and the ceilings measured in the same run, and writes gpu-plugin.json into the folder given. Without a GPU
it says so and measures nothing; `--rehearse LIBRARY` goes through all of it on the CPU, at tiny sizes, with kernels
built for the host, and writes a file in which every time is null.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from benchmarks.boxes import BoxBench, Row
from benchmarks.gpu import (
    Ceilings,
    Clock,
    current_stream,
    describe_gpu,
    measure_ceilings,
    no_time,
    time_launched_us,
    time_us,
    write_report,
)
from benchmarks.proposals import check_proposals, proposal_goal, time_proposals
from benchmarks.suppression import check_suppression, frames_of, suppression_goal, time_suppression
from deploy.plugin import library as kernels
from deploy.plugin.cases import Case, Tensors, make, random_case, tap_maps, torchvision_answer
from deploy.plugin.library import PluginError, build_library, open_library
from deploy.plugin.operators import Call, Grid, Pair

TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Largest relative error (of norms) that random cases may have."""
TILES = {
    "64x64": kernels.TILE_64X64,
    "128x128": kernels.TILE_128X128,
    "128x256": kernels.TILE_128X256,
}
MEASURED = "median of 15 replays of a CUDA graph of 10 calls each; inputs stay in the cache, as in a stream"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is tried."""

    maps: tuple[Pair, ...]
    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    pairs: tuple[int, ...]
    """Numbers of short-term frames, over which the once-per-frame part is spread."""
    splits: tuple[int, ...]
    """Parts of the sum that run side by side: timed one by one, to see whether the kernels' own choice is right."""
    random_cases: int
    proposals: Pair
    """Anchors of a frame before suppression, boxes after it."""
    classes: tuple[int, ...]
    """Numbers of object classes, each of which has all of these boxes."""


FULL = Sizes(
    ((38, 63), (60, 94)), (256, 512, 1024), (3, 1), (2, 24), (1, 2, 3, 4, 6), 200, (6000, 300), (1, 30)
)
REHEARSAL = Sizes(((5, 7),), (32,), (3, 1), (2,), (1, 2), 2, (200, 30), (2,))


@dataclass(frozen=True, slots=True)
class Bench:
    """Where everything runs and how it is timed."""

    library: ctypes.CDLL
    device: torch.device
    clock: Clock
    ceilings: Ceilings
    sizes: Sizes
    launched: Clock = no_time
    """Times a call from Python, all it waits for included."""

    def boxes(self) -> BoxBench:
        """Return where operators on boxes run."""
        return BoxBench(self.library, self.device, self.clock, self.launched)


TABLES = (
    *("random_cases", "errors", "proposals", "suppression"),
    *("times", "proposal_times", "suppression_times", "goals"),
)


def main() -> None:
    """Check, time, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the JSON file")
    parser.add_argument("--rehearse", type=Path, metavar="LIBRARY", help="run on the CPU and time nothing")
    arguments = parser.parse_args()
    try:
        written = (
            rehearse(arguments.rehearse, arguments.out) if arguments.rehearse else measure(arguments.out)
        )
    except PluginError as error:
        parser.exit(2, f"error: {error}\n")
    print(f"written: {written}")


def measure(out: Path) -> Path:
    """Run everything on the GPU."""
    if not torch.cuda.is_available():
        raise PluginError(
            "torch finds no CUDA GPU on this machine, so that nothing was measured; run it on one that has"
        )
    major, minor = torch.cuda.get_device_capability()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.so"
        build_library(path, [10 * major + minor])
        device = torch.device("cuda")
        ceilings = measure_ceilings(time_us, device)
        bench = Bench(open_library(path), device, time_us, ceilings, FULL, time_launched_us)
        return write_report(out / "gpu-plugin.json", {"machine": describe_gpu(), **results(bench)}, TABLES)


def rehearse(library: Path, out: Path) -> Path:
    """Run everything on the CPU with a library for it; no time is taken."""
    device = torch.device("cpu")
    bench = Bench(open_library(library), device, no_time, measure_ceilings(no_time, device), REHEARSAL)
    return write_report(
        out / "rehearsal-plugin.json", {"machine": "no GPU: a rehearsal", **results(bench)}, TABLES
    )


def results(bench: Bench) -> Row:
    """Return all of the report but the machine."""
    random_errors = check_random_cases(bench)
    errors = error_table(bench)
    sizes = bench.sizes
    boxes, frames = bench.boxes(), frames_of(sizes.proposals[1], sizes.classes)
    proposals = check_proposals(boxes, sizes.maps, sizes.proposals, sizes.random_cases)
    suppression = check_suppression(boxes, frames, sizes.random_cases)
    times = [row for case in timed_cases(sizes) for row in time_case(bench, case)]
    proposal_times = list(time_proposals(boxes, sizes.maps, sizes.proposals))
    suppression_times = list(time_suppression(boxes, frames))
    return {
        "method": MEASURED,
        "ceilings": asdict(bench.ceilings),
        "random_cases": random_errors,
        "errors": errors,
        "proposals": proposals,
        "suppression": suppression,
        "times": times,
        "proposal_times": proposal_times,
        "suppression_times": suppression_times,
        "goals": [
            *goals(errors, times),
            *box_goals("PyTorch's operators / our proposals", proposal_goal(proposal_times)),
            *box_goals("torchvision's batched_nms / our suppression", suppression_goal(suppression_times)),
        ],
    }


# ------------------------------------------------------------------------------------------------------ errors


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of what is expected; infinite where something is no number."""
    difference = float((found.double() - expected).norm())
    error = difference / max(float(expected.norm()), 1e-3 * expected.numel() ** 0.5)
    return error if math.isfinite(error) else math.inf


def check_random_cases(bench: Bench) -> list[Row]:
    """Hold every kernel that this GPU can run to torchvision's float64 on random cases; return the worst errors."""
    tried = [("simple", dtype, kernels.SIMPLE, kernels.NCHW) for dtype in (torch.float32, torch.float16)]
    halves = (torch.float16, torch.bfloat16)
    tried += [("simple", dtype, kernels.SIMPLE, kernels.NHWC) for dtype in halves]
    tried += [(name, dtype, tile, kernels.NHWC) for name, tile in TILES.items() for dtype in halves]
    rows = []
    for name, dtype, algorithm, layout in tried:
        if not runs_here(bench, dtype, algorithm, layout):
            continue
        draw = random_case if algorithm == kernels.SIMPLE else tile_case
        cases = [draw(Random(seed)) for seed in range(bench.sizes.random_cases)]
        worst = max(case_error(bench, case, dtype, algorithm, layout) for case in cases)
        require_precise(f"kernel {name} on random cases", worst, dtype)
        order = "NCHW" if layout == kernels.NCHW else "NHWC"
        rows.append({"kernel": name, "type": f"{dtype}", "layout": order, "worst relative error": worst})
    return rows


def runs_here(bench: Bench, dtype: torch.dtype, algorithm: int, layout: int) -> bool:
    """Return whether this GPU has what a kernel needs: Turing lacks bfloat16 and memory for the largest tile."""
    case = plain_case((4, 4), 32, 3)
    call = deform(bench, case, make(case).to(dtype).on(bench.device), algorithm=algorithm, layout=layout)
    return call.status() != kernels.NOT_SUPPORTED


def require_precise(what: str, error: float, dtype: torch.dtype) -> None:
    """Stop the run where a result is wrong: times of a wrong kernel mean nothing."""
    if error > TOLERANCE[dtype]:
        raise PluginError(
            f"{what}, {dtype}: relative error {error:.3g}, expected <= {TOLERANCE[dtype]:.3g}; nothing was written"
        )


def tile_case(random: Random) -> Case:
    """Draw a case that the tensor-core kernel takes."""
    groups, offset_groups = random.choice([(1, 1), (2, 1), (1, 2), (2, 2)])
    return random_case(
        random,
        max_side=20,
        kernels=((1, 1), (3, 3), (2, 3)),
        groups=groups,
        offset_groups=offset_groups,
        channels_per_group=random.choice([32, 64] if offset_groups > 1 else [8, 40, 64]),
        out_channels_per_group=random.choice([8, 24, 72, 264]),
    )


def case_error(bench: Bench, case: Case, dtype: torch.dtype, algorithm: int, layout: int) -> float:
    """Return a kernel's relative error on a case; NaN where an output was not written."""
    tensors = make(case).to(dtype).on(bench.device)
    call = deform(bench, case, tensors, algorithm=algorithm, layout=layout)
    run(bench, call)
    return relative_error(call.output(), torchvision_answer(case, tensors, torch.float64))


def error_table(bench: Bench) -> list[Row]:
    """Return how far each way to compute is from float64, given the same float32 numbers."""
    size, channels = bench.sizes.maps[0], bench.sizes.channels[0]
    case = plain_case(size, channels, 3)
    tensors = make(case).on(bench.device)
    expected = torchvision_answer(case, tensors, torch.float64)
    found = {"torchvision float32": torchvision_answer(case, tensors)}
    if bench.device.type == "cuda":
        with tf32():
            found["torchvision TF32"] = torchvision_answer(case, tensors)
        found["torchvision half"] = torchvision_answer(case, tensors, torch.float16)
    for dtype in TOLERANCE:
        layout = kernels.NCHW if dtype == torch.float32 else kernels.NHWC
        whole = deform(bench, case, tensors.to(dtype), layout=layout)
        summed = sum_call(bench, case, tap_maps(tensors).to(dtype), tensors)
        for what, call in (("", whole), (", 1x1 convolution + sampled sum", summed)):
            run(bench, call)
            found[f"ours {name_of(dtype)}{what}"] = call.output()
            require_precise(f"ours{what}", relative_error(call.output(), expected), dtype)
    where = f"{size[0]}x{size[1]}, C = {channels}, k = 3"
    return [
        {"what": what, "where": where, "relative error": relative_error(answer, expected)}
        for what, answer in found.items()
    ]


# ------------------------------------------------------------------------------------------------------- times


def plain_case(size: Pair, channels: int, kernel: int) -> Case:
    """Return the alignment's own convolution: as many channels out as in, offsets of two cells."""
    grid = Grid(kernel=(kernel, kernel), padding=(kernel // 2, kernel // 2))
    return Case(grid, 1, size, 1, 1, channels, channels, False, True, 2.0, seed=0)


def timed_cases(sizes: Sizes) -> Iterator[Case]:
    """Return every map, number of channels and kernel."""
    return (
        plain_case(size, channels, kernel)
        for size in sizes.maps
        for channels in sizes.channels
        for kernel in sizes.kernels
    )


def time_case(bench: Bench, case: Case) -> Iterator[Row]:
    """Time all ways to do one convolution; a way the GPU has no memory for has no time."""
    tensors = make(case).on(bench.device)
    head = {"map": f"{case.size[0]}x{case.size[1]}", "C": case.channels, "k": case.grid.kernel[0]}
    for what, prepare in ways(bench, case, tensors).items():
        with tf32(what == "torchvision TF32"):
            yield {**head, "what": what, "pairs": 1, "us per pair": timed(bench, prepare)}
    yield {**head, "what": "floor, whole", "pairs": 1, "us per pair": whole_floor(bench.ceilings, case)}
    for pairs in bench.sizes.pairs:
        several = replace(case, batch=pairs)
        prepared = ways(bench, several, make(several).on(bench.device))
        for what in ("torchvision float32", "ours half"):
            us = timed(bench, prepared[what])
            yield {**head, "what": what, "pairs": pairs, "us per pair": None if us is None else us / pairs}
    maps_us = timed(bench, lambda: product_of_maps(tensors))
    yield {**head, "what": "1x1 convolution to maps, half", "pairs": 1, "us per pair": maps_us}
    for pairs in (1, *bench.sizes.pairs):
        sum_us = timed(bench, partial(prepare_sum, bench, case, tensors, pairs))
        own = None if sum_us is None else sum_us / pairs
        both = None if own is None or maps_us is None else own + maps_us / pairs
        yield {**head, "what": "sampled sum, half", "pairs": pairs, "us per pair": own}
        yield {**head, "what": "1x1 convolution + sampled sum, half", "pairs": pairs, "us per pair": both}
    yield {**head, "what": "floor, sampled sum", "pairs": 1, "us per pair": sum_floor(bench.ceilings, case)}


Prepare = Callable[[], Callable[[], object]]


def ways(bench: Bench, case: Case, tensors: Tensors) -> dict[str, Prepare]:
    """Return the ways to do the whole convolution, each as what prepares it."""

    def torchvisions(dtype: torch.dtype) -> Callable[[], object]:
        given = tensors.wholly(dtype)
        return lambda: torchvision_answer(case, given, dtype)

    def ours(dtype: torch.dtype, **choice: int) -> Callable[[], object]:
        layout = kernels.NCHW if dtype == torch.float32 else kernels.NHWC
        return partial(run, bench, deform(bench, case, tensors.to(dtype), layout=layout, **choice))

    found: dict[str, Prepare] = {"torchvision float32": partial(torchvisions, torch.float32)}
    if bench.device.type == "cuda":
        found["torchvision TF32"] = partial(torchvisions, torch.float32)
        found["torchvision half"] = partial(torchvisions, torch.float16)
    for dtype in TOLERANCE:
        found[f"ours {name_of(dtype)}"] = partial(ours, dtype)
    for name, tile in TILES.items():
        if not runs_here(bench, torch.float16, tile, kernels.NHWC):
            continue
        for splits in bench.sizes.splits:
            what = f"ours half, tile {name}, {splits} parts"
            found[what] = partial(ours, torch.float16, algorithm=tile, splits=splits)
    return found


def timed(bench: Bench, prepare: Prepare) -> float | None:
    """Return the time of what `prepare` returns."""
    try:
        return bench.clock(prepare())
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def product_of_maps(tensors: Tensors) -> Callable[[], object]:
    """Return the once-per-frame part: the matrix product that makes all per-tap maps."""
    rows = tensors.features.half().flatten(2).transpose(1, 2)[0].contiguous()  # (H*W, C)
    weight = tensors.weight.half().flatten(2).permute(1, 2, 0).flatten(1).contiguous()  # (C, K*O), tap-major
    maps = torch.empty(rows.shape[0], weight.shape[1], dtype=rows.dtype, device=rows.device)
    return lambda: torch.mm(rows, weight, out=maps)


def prepare_sum(bench: Bench, case: Case, tensors: Tensors, pairs: int) -> Callable[[], object]:
    """Return the sampled sum of as many pairs, each with its own maps and offsets."""
    random = torch.Generator(bench.device).manual_seed(pairs)
    shape = (pairs, *tensors.offsets.shape[1:])
    offsets = torch.randn(shape, generator=random, device=bench.device) * case.offset_scale
    maps = tap_maps(tensors).half().repeat(pairs, 1, 1, 1)
    return partial(run, bench, sum_call(bench, case, maps, replace(tensors, offsets=offsets)))


def whole_floor(ceilings: Ceilings, case: Case) -> float | None:
    """Return the least time of the convolution: all multiplications, and every tensor read or written once."""
    cells, taps = case.size[0] * case.size[1], case.grid.kernel[0] ** 2
    half, single = 2, 4
    tensors = half * (2 * cells * case.channels + taps * case.channels**2) + single * 2 * taps * cells
    return ceilings.floor_us(2.0 * cells * taps * case.channels**2, tensors)


def sum_floor(ceilings: Ceilings, case: Case) -> float | None:
    """Return the least time of the sampled sum of one pair."""
    cells, taps = case.size[0] * case.size[1], case.grid.kernel[0] ** 2
    half, single = 2, 4
    return ceilings.floor_us(0.0, half * (taps + 1) * cells * case.channels + single * 2 * taps * cells)


# ------------------------------------------------------------------------------------------------------- goals


def goals(errors: list[Row], times: list[Row]) -> list[Row]:
    """Compare what was measured with what was aimed at; a goal without a measurement has no answer."""
    by_what = {row["what"]: row["relative error"] for row in errors}
    half_error = by_what.get("torchvision half")
    gain = None if half_error is None else half_error / by_what["ours half"]
    found = [_goal("error of torchvision half / ours half", "all", gain, 20.0)]
    for head in dict.fromkeys((row["map"], row["C"], row["k"]) for row in times):
        same = (row for row in times if (row["map"], row["C"], row["k"]) == head and row["pairs"] == 1)
        us = {row["what"]: row["us per pair"] for row in same}
        where = f"{head[0]}, C = {head[1]}, k = {head[2]}"
        for other, aim in (("torchvision float32", 6.0), ("torchvision TF32", 2.0)):
            found.append(_goal(f"time of {other} / ours half", where, _ratio(us, other), aim))
        if head[1] == 1024:
            found.append(_goal("share of the floor", where, _ratio(us, "floor, whole"), 0.5))
    return found


def box_goals(what: str, ratios: Iterator[tuple[str, float | None]]) -> list[Row]:
    """Compare how many times as long PyTorch takes with twice."""
    return [_goal(f"time of {what}", where, ratio, 2.0) for where, ratio in ratios]


def _ratio(us: dict[str, float | None], other: str) -> float | None:
    theirs, ours = us.get(other), us["ours half"]
    return None if theirs is None or ours is None else theirs / ours


def _goal(what: str, where: str, found: float | None, aim: float) -> Row:
    met = None if found is None else found >= aim
    return {"goal": what, "where": where, "found": found, "at least": aim, "met": met}


# ------------------------------------------------------------------------------------------------------- calls


def name_of(dtype: torch.dtype) -> str:
    """Return the word used in the tables."""
    return {torch.float32: "float32", torch.float16: "half", torch.bfloat16: "bfloat16"}[dtype]


def deform(bench: Bench, case: Case, tensors: Tensors, *, layout: int, **choice: int) -> Call:
    """Prepare our deformable convolution."""
    return Call.deform_conv2d(
        bench.library,
        *(tensors.features, tensors.offsets, tensors.weight, tensors.bias, tensors.mask),
        grid=case.grid,
        layout=layout,
        **choice,  # type: ignore[arg-type]
    )


def sum_call(bench: Bench, case: Case, maps: Tensor, tensors: Tensors) -> Call:
    """Prepare our sampled sum; its output lies NCHW in float32, else NHWC."""
    layout = kernels.NCHW if maps.dtype == torch.float32 else kernels.NHWC
    return Call.sampled_sum(bench.library, maps, tensors.offsets, tensors.bias, grid=case.grid, layout=layout)


def run(bench: Bench, call: Call) -> None:
    """Run in torch's current stream."""
    call.run(current_stream(bench.device))


@contextmanager
def tf32(allowed: bool = True) -> Iterator[None]:
    """Let torch's matrix products round their inputs to TF32, or see that they do not."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


if __name__ == "__main__":
    main()
