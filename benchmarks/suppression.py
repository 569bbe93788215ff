"""The plugin's suppression: PyTorch's to the last bit, and how long it takes beside torchvision's batched_nms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from benchmarks.boxes import BoxBench, Row, ratio
from deploy.plugin.library import PluginError
from deploy.plugin.suppression import SuppressionCall
from deploy.plugin.suppression_cases import SuppressionCase, frame_case, make, random_case, torchs_answer

OURS, TORCHVISIONS = "ours", "torchvision's batched_nms"


def check_suppression(bench: BoxBench, frames: Sequence[SuppressionCase], random_cases: int) -> list[Row]:
    """Hold the kernel to PyTorch on the CPU, random cases and whole frames; stop where a mark differs."""
    drawn = [random_case(Random(seed)) for seed in range(random_cases)]
    rows = []
    for what, cases in (("random", drawn), ("frames", frames)):
        kept = [_checked(bench, case) for case in cases]
        rows.append({"what": what, "cases": len(cases), "kept": sum(kept), "different": 0})
    return rows


def _checked(bench: BoxBench, case: SuppressionCase) -> int:
    boxes, scores = make(case)
    expected = torchs_answer(case, boxes, scores)
    call = prepare(bench, case, boxes, scores)
    bench.run(call)
    if not torch.equal(call.marks.cpu(), expected):
        raise PluginError(f"suppression differs from PyTorch's for {case}; nothing was written")
    return int(expected.sum())


def time_suppression(bench: BoxBench, frames: Sequence[SuppressionCase]) -> Iterator[Row]:
    """Time both ways to suppress a frame's boxes; only what waits for nothing can be replayed."""
    for case in frames:
        head = {"classes": case.classes, "boxes of each": case.boxes}
        for what, work in ways(bench, case).items():
            replayed = bench.replayed(work) if what == OURS else None
            yield {**head, "what": what, "us launched": bench.launched(work), "us replayed": replayed}


def ways(bench: BoxBench, case: SuppressionCase) -> dict[str, Callable[[], object]]:
    """Return the ways to suppress."""
    boxes, scores = (tensor.to(bench.device) for tensor in make(case))
    return {
        OURS: partial(bench.run, prepare(bench, case, boxes, scores)),
        TORCHVISIONS: partial(batched, case, boxes, scores),
    }


def batched(case: SuppressionCase, boxes: Tensor, scores: Tensor) -> Tensor:
    """Return which boxes torchvision keeps of all classes together, as a detection head asks for it."""
    classes, index = (scores > case.score_threshold).nonzero(as_tuple=True)
    kept: Tensor = batched_nms(boxes[classes, index], scores[classes, index], classes, case.nms_iou)
    return kept


def suppression_goal(rows: Sequence[Row]) -> Iterator[tuple[str, float | None]]:
    """Return, for each number of classes, how many times as long as ours torchvision takes, launched from Python."""
    for classes in dict.fromkeys(row["classes"] for row in rows):
        by_what = {row["what"]: row for row in rows if row["classes"] == classes}
        yield f"{classes} classes", ratio(by_what[TORCHVISIONS], by_what[OURS])


def frames_of(boxes: int, classes: Sequence[int]) -> list[SuppressionCase]:
    """Return frames of detectors with as many proposals and these numbers of classes."""
    return [frame_case(classes=number, boxes=boxes) for number in classes]


def prepare(bench: BoxBench, case: SuppressionCase, boxes: Tensor, scores: Tensor) -> SuppressionCall:
    """Prepare our suppression on the bench's device."""
    return SuppressionCall.prepare(
        bench.library,
        *(boxes.to(bench.device), scores.to(bench.device)),
        nms_iou=case.nms_iou,
        score_threshold=case.score_threshold,
        max_kept=case.max_kept,
    )
