"""The plugin's region proposals: the model's to the last bit, and how long they take beside PyTorch's operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

import torch
from torch import Tensor
from torchvision.ops import nms

from benchmarks.boxes import BoxBench, Row, ratio
from deploy.plugin.library import PluginError
from deploy.plugin.operators import Pair
from deploy.plugin.proposal_cases import Maps, ProposalCase, frame_case, make, models_answer, random_case
from deploy.plugin.proposals import ProposalCall
from lstfe import boxes as box_geometry
from lstfe.model.proposals import flatten_maps

OURS, OPERATORS, MODELS = "ours", "topk + decode + torchvision's nms", "the model's propose"


def check_proposals(bench: BoxBench, maps: Sequence[Pair], top_k: Pair, random_cases: int) -> list[Row]:
    """Hold the kernels to the model on the CPU, random cases and whole frames; stop where a bit differs.

    `top_k` is the number of anchors before suppression and of boxes after it.
    """
    frames = [frame_case(size, pre_nms_top_k=top_k[0], top_k=top_k[1]) for size in maps]
    drawn = [random_case(Random(seed)) for seed in range(random_cases)]
    rows = []
    for what, cases in (("random", drawn), ("frames", frames)):
        found = [_checked(bench, case) for case in cases]
        rows.append({"what": what, "cases": len(cases), "boxes": sum(found), "different": 0})
    return rows


def _checked(bench: BoxBench, case: ProposalCase) -> int:
    maps = make(case)
    expected = models_answer(case, maps)
    call = prepare(bench, case, _on(bench.device, maps))
    bench.run(call)
    if not (
        torch.equal(call.valid.cpu().bool(), expected.valid) and torch.equal(call.boxes.cpu(), expected.boxes)
    ):
        raise PluginError(f"proposals differ from the model's for {case}; nothing was written")
    return int(expected.valid.sum())


def time_proposals(bench: BoxBench, maps: Sequence[Pair], top_k: Pair) -> Iterator[Row]:
    """Time all ways to the proposals of a frame; only what waits for nothing can be replayed."""
    for size in maps:
        case = frame_case(size, pre_nms_top_k=top_k[0], top_k=top_k[1])
        head = {"map": f"{size[0]}x{size[1]}", "anchors": case.num_anchors, "of": top_k[0], "to": top_k[1]}
        for what, work in ways(bench, case).items():
            replayed = bench.replayed(work) if what == OURS else None
            yield {**head, "what": what, "us launched": bench.launched(work), "us replayed": replayed}


def ways(bench: BoxBench, case: ProposalCase) -> dict[str, Callable[[], object]]:
    """Return the ways to the proposals."""
    maps = _on(bench.device, make(case))
    network = case.network().to(bench.device)
    return {
        OURS: partial(bench.run, prepare(bench, case, maps)),
        OPERATORS: partial(best_boxes, case, maps, network.anchors(case.size)),
        MODELS: lambda: network.propose(
            maps.objectness, maps.box_deltas, [case.image_size], top_k=case.top_k
        ),
    }


@torch.no_grad()
def best_boxes(case: ProposalCase, maps: Maps, anchors: Tensor) -> Tensor:
    """Return the proposals (at most K, 4) by PyTorch's operators, anchors made before."""
    config = case.config
    logits, deltas = (part[0] for part in flatten_maps(maps.objectness, maps.box_deltas))
    scores, best = logits.topk(min(config.pre_nms_top_k, len(logits)))
    boxes = box_geometry.decode(deltas[best], anchors[best], (1.0, 1.0, 1.0, 1.0))
    boxes = box_geometry.clip_to_image(boxes, case.image_size)
    large = ((boxes[:, 2:] - boxes[:, :2]) > max(config.min_size_px, 1e-3)).all(dim=1)
    boxes, scores = boxes[large], scores[large]
    return boxes[nms(boxes, scores, config.nms_iou)[: case.top_k]]


def proposal_goal(rows: Sequence[Row]) -> Iterator[tuple[str, float | None]]:
    """Return, for each map, how many times as long as ours PyTorch's operators take, both launched from Python."""
    for where in dict.fromkeys(row["map"] for row in rows):
        by_what = {row["what"]: row for row in rows if row["map"] == where}
        yield where, ratio(by_what[OPERATORS], by_what[OURS])


def prepare(bench: BoxBench, case: ProposalCase, maps: Maps) -> ProposalCall:
    """Prepare our proposals of a case's maps."""
    return ProposalCall.prepare(
        bench.library,
        *(maps.objectness, maps.box_deltas, case.network().cell_anchors.to(bench.device)),
        torch.tensor(case.image_size),
        stride=case.stride,
        pre_nms_top_k=case.config.pre_nms_top_k,
        post_nms_top_k=case.top_k,
        nms_iou=case.config.nms_iou,
        min_size_px=case.config.min_size_px,
    )


def _on(device: torch.device, maps: Maps) -> Maps:
    return Maps(maps.objectness.to(device), maps.box_deltas.to(device))
