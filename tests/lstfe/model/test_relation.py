"""Proposal-level aggregation against loops over groups, queries and references (paper eq. 5-9)."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lstfe.config import RelationConfig
from lstfe.model.relation import (
    FeatureAggregation,
    LocationGate,
    RelatedProposals,
    RelationStage,
    relative_position,
    sinusoid,
)

EMBEDDING, GROUPS = 12, 3
BASE = RelationConfig(embedding=EMBEDDING, num_groups=GROUPS)
SWITCHES: list[dict[str, Any]] = [
    {},
    {"gate": "additive"},
    {"location_embedding": "direct"},
    {"location_embedding": "direct", "gate": "additive"},
    {"value_projection": False},
    {"group_bias": False},
    {"variant": "no_location"},
    {"variant": "simple"},
]
LONG, SHORT = "long_term", "short_term"


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4, generator=generator)
    return module.double()


def build_stage(*, located: bool = True, **switches: Any) -> RelationStage:
    config = replace(BASE, **switches)
    stage = randomised(RelationStage(config, located=located and config.variant == "full"))
    assert isinstance(stage, RelationStage)
    return stage


def proposals(
    number: int, *, clips: int = 2, seed: int = 0, num_valid: int | None = None
) -> RelatedProposals:
    """Random proposals; those past `num_valid` are padding: zero boxes, features that would be noticed."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(clips, number, EMBEDDING, generator=generator, dtype=torch.float64)
    corners = torch.rand(clips, number, 2, generator=generator, dtype=torch.float64) * 50
    sides = 4 + torch.rand(clips, number, 2, generator=generator, dtype=torch.float64) * 30
    boxes = torch.cat((corners, corners + sides), dim=2)
    valid = torch.ones(clips, number, dtype=torch.bool)
    if num_valid is not None:
        valid[:, num_valid:] = False
        boxes[:, num_valid:] = 0
        features[:, num_valid:] *= 100
    return RelatedProposals(features, boxes, valid)


def subset(whole: RelatedProposals, places: Any) -> RelatedProposals:
    return RelatedProposals(whole.features[:, places], whole.boxes[:, places], whole.valid[:, places])


# ------------------------------------------------------------------------------------------- references


def loop_psi(query: list[float], reference: list[float]) -> list[float]:
    """eq. 8's four numbers for one pair of boxes, the query in the denominators."""
    (qx1, qy1, qx2, qy2), (rx1, ry1, rx2, ry2) = query, reference
    width, height = qx2 - qx1, qy2 - qy1
    return [
        math.log(abs((qx1 + qx2) / 2 - (rx1 + rx2) / 2) / width + 1e-3),
        math.log(abs((qy1 + qy2) / 2 - (ry1 + ry2) / 2) / height + 1e-3),
        math.log(width / (rx2 - rx1)),
        math.log(height / (ry2 - ry1)),
    ]


def loop_sinusoid(numbers: list[float]) -> list[float]:
    """For each number 8 sines, then 8 cosines, of 100 x / 1000^(i/8)."""
    lifted = []
    for number in numbers:
        angles = [100 * number / 1000 ** (i / 8) for i in range(8)]
        lifted += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    return lifted


def loop_gate(gate: LocationGate, config: RelationConfig, query: Tensor, reference: Tensor) -> list[float]:
    """What is added to each group's logit for one pair of boxes."""
    psi = loop_psi(query.tolist(), reference.tolist())
    numbers = loop_sinusoid(psi) if config.location_embedding == "sinusoid" else psi
    rows = zip(gate.linear.weight.tolist(), gate.linear.bias.tolist(), strict=True)
    weights = [max(0.0, sum(w * n for w, n in zip(row, numbers, strict=True)) + b) for row, b in rows]
    return weights if config.gate == "additive" else [math.log(weight + 1e-6) for weight in weights]


def loop_stage(stage: RelationStage, queries: RelatedProposals, references: RelatedProposals) -> Tensor:
    """One stage, clip by clip, query by query, group by group, over the valid references only."""
    return torch.stack(
        [
            torch.stack(
                [_loop_query(stage, queries, references, clip, n) for n in range(queries.features.shape[1])]
            )
            for clip in range(len(queries.features))
        ]
    )


def _loop_query(
    stage: RelationStage, queries: RelatedProposals, references: RelatedProposals, clip: int, n: int
) -> Tensor:
    x, config = queries.features[clip, n], stage.config
    places = [m for m in range(references.features.shape[1]) if references.valid[clip, m]]
    if not places:
        return x
    if stage.simple is not None:
        mean = sum(references.features[clip, m] for m in places) / len(places)
        return stage.simple.weight @ torch.cat((x, mean)) + stage.simple.bias
    width = config.embedding // config.num_groups
    groups = [slice(k * width, (k + 1) * width) for k in range(config.num_groups)]  # eq. 5
    gates = {
        m: loop_gate(stage.location, config, queries.boxes[clip, n], references.boxes[clip, m])
        if stage.location is not None
        else [0.0] * config.num_groups
        for m in places
    }
    enhanced = x.clone()
    for k, group in enumerate(groups):
        query = (stage.query.weight @ x)[group]
        logits, values = [], []
        for m in places:
            r = references.features[clip, m]
            key = (stage.key.weight @ r)[group]
            logit = query @ key / math.sqrt(width)
            if stage.group_bias is not None:
                logit = logit + stage.group_bias[k] @ key / math.sqrt(width)  # Sim(mu, W r)
            logits.append((logit + gates[m][k]).item())
            values.append(r[group] if stage.value is None else (stage.value(r))[group])
        largest = max(logits)
        exponents = [math.exp(logit - largest) for logit in logits]
        for exponent, value in zip(exponents, values, strict=True):
            enhanced[group] += exponent / sum(exponents) * value
    return enhanced


# --------------------------------------------------------------------------------------------- location


def test_psi_and_its_sinusoid_equal_loops() -> None:
    queries, references = proposals(4).boxes, proposals(5, seed=1).boxes
    psi = relative_position(queries, references)
    lifted = sinusoid(psi)
    for clip, n, m in itertools.product(range(2), range(4), range(5)):
        expected = loop_psi(queries[clip, n].tolist(), references[clip, m].tolist())
        assert psi[clip, n, m].tolist() == pytest.approx(expected, abs=1e-9)
        assert lifted[clip, n, m].tolist() == pytest.approx(loop_sinusoid(expected), abs=1e-7)


def test_psi_ignores_a_translation_of_both_boxes() -> None:
    queries, references = proposals(4).boxes, proposals(5, seed=1).boxes
    moved = torch.tensor([13.0, -7.0, 13.0, -7.0], dtype=torch.float64)
    torch.testing.assert_close(
        relative_position(queries + moved, references + moved), relative_position(queries, references)
    )


@pytest.mark.parametrize("gate", ["log_gate", "additive"])
@pytest.mark.parametrize("embedding", ["sinusoid", "direct"])
def test_the_gate_is_finite_on_identical_boxes_and_on_padding(gate: str, embedding: str) -> None:
    location = build_stage(gate=gate, location_embedding=embedding).location
    assert location is not None
    boxes = torch.cat((proposals(3).boxes, torch.zeros(2, 2, 4, dtype=torch.float64)), dim=1)
    boxes.requires_grad_()
    gates = location(boxes, boxes)
    gates.sum().backward()
    assert gates.shape == (2, GROUPS, 5, 5)
    assert gates.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in location.parameters())


# ------------------------------------------------------------------------------------------- one stage


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_without_references_the_queries_stay_as_they_are(switches: dict[str, Any]) -> None:
    stage, queries = build_stage(**switches), proposals(4)
    assert torch.equal(stage(queries, proposals(0)), queries.features)
    padding_only = stage(queries, proposals(3, num_valid=0))
    assert torch.equal(padding_only, queries.features)


@torch.no_grad()
@pytest.mark.parametrize("located", [True, False])
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_a_stage_equals_loops_over_groups_queries_and_references(
    switches: dict[str, Any], located: bool
) -> None:
    stage = build_stage(located=located, **switches)
    queries, references = proposals(4), proposals(7, seed=1, num_valid=5)
    references.valid[1, 2] = False
    torch.testing.assert_close(stage(queries, references), loop_stage(stage, queries, references))


@torch.no_grad()
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_padded_references_have_exactly_no_influence(switches: dict[str, Any]) -> None:
    stage, queries = build_stage(**switches), proposals(4)
    references = proposals(7, seed=1, num_valid=5)
    once = stage(queries, references)
    references.features[:, 5:] = torch.randn_like(references.features[:, 5:]) * 1e6
    references.boxes[:, 5:] = 31.0
    assert torch.equal(stage(queries, references), once)
    torch.testing.assert_close(stage(queries, subset(references, slice(0, 5))), once)


def test_padded_references_receive_exactly_no_gradient() -> None:
    stage, references = build_stage(), proposals(7, seed=1, num_valid=5)
    references.features.requires_grad_()
    stage(proposals(4), references).square().sum().backward()
    assert (references.features.grad[:, 5:] == 0).all()
    assert (references.features.grad[:, :5] != 0).any()


@torch.no_grad()
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_order_of_the_references_changes_nothing(switches: dict[str, Any]) -> None:
    stage, queries, references = build_stage(**switches), proposals(4), proposals(6, seed=1, num_valid=5)
    permuted = subset(references, torch.tensor([5, 3, 0, 4, 1, 2]))
    torch.testing.assert_close(stage(queries, permuted), stage(queries, references))


@torch.no_grad()
def test_without_location_the_short_term_formula_is_the_long_term_one() -> None:
    stages = [build_stage(located=located, variant="no_location") for located in (True, False)]
    queries, references = proposals(4), proposals(6, seed=1)
    assert torch.equal(*(stage(queries, references) for stage in stages))
    moved = replace_boxes(references, references.boxes + 9)
    assert torch.equal(stages[0](queries, moved), stages[0](queries, references))


@torch.no_grad()
def test_with_location_a_moved_reference_counts_differently() -> None:
    stage, queries, references = build_stage(), proposals(4), proposals(6, seed=1)
    boxes = references.boxes.clone()
    boxes[:, 0] += 9
    moved = replace_boxes(references, boxes)
    assert not torch.allclose(stage(queries, moved), stage(queries, references))


def replace_boxes(whole: RelatedProposals, boxes: Tensor) -> RelatedProposals:
    return RelatedProposals(whole.features, boxes, whole.valid)


@torch.no_grad()
def test_a_clip_without_references_does_not_disturb_the_other_clip() -> None:
    stage, queries, references = build_stage(), proposals(4), proposals(6, seed=1)
    alone = stage(queries, references)
    references.valid[0] = False
    enhanced = stage(queries, references)
    assert torch.equal(enhanced[0], queries.features[0])
    torch.testing.assert_close(enhanced[1], alone[1])


def test_a_simple_stage_starts_by_keeping_the_queries() -> None:
    stage = RelationStage(replace(BASE, variant="simple"), located=False)
    queries, references = proposals(4), proposals(6, seed=1)
    features = queries.features.float()
    queries.features, references.features = features, references.features.float()
    torch.testing.assert_close(stage(queries, references), features, rtol=0, atol=0.3)


# -------------------------------------------------------------------------------------------- all stages


def loop_aggregation(
    module: FeatureAggregation,
    current: RelatedProposals,
    short_frames: list[RelatedProposals],
    long_term: RelatedProposals,
) -> Tensor:
    """SPEC 6's order of stages with short-term proposals kept frame by frame."""
    config, kinds = module.config, list(module.config.stages)
    for index, (kind, stage) in enumerate(zip(kinds, module.stages, strict=True)):
        is_needed_later = SHORT in kinds[index + 1 :]
        if kind == LONG:
            # Short-term proposals are enhanced for later short-term stages, else the current ones.
            if is_needed_later:
                short_frames = [updated(stage, frame, [long_term]) for frame in short_frames]
            if config.enhance_current or not is_needed_later:
                current = updated(stage, current, [long_term])
            continue
        if kinds[:index].count(SHORT) == 1:
            short_frames = [best_share(frame, config.distill_ratio) for frame in short_frames]
        enhanced = updated(stage, current, short_frames)
        if is_needed_later:
            distilled = [best_share(frame, config.distill_ratio) for frame in short_frames]
            if SHORT in kinds[:index]:
                distilled = short_frames
            better = [updated(stage, frame, short_frames) for frame in distilled]
            short_frames = [
                joined([new, subset(old, slice(new.features.shape[1], None))])
                for new, old in zip(better, short_frames, strict=True)
            ]
        current = enhanced
    return current.features


def joined(parts: list[RelatedProposals]) -> RelatedProposals:
    names = ("features", "boxes", "valid")
    return RelatedProposals(*(torch.cat([getattr(part, name) for part in parts], dim=1) for name in names))


def updated(
    stage: nn.Module, queries: RelatedProposals, references: list[RelatedProposals]
) -> RelatedProposals:
    assert isinstance(stage, RelationStage)
    if not references:
        return queries
    return RelatedProposals(loop_stage(stage, queries, joined(references)), queries.boxes, queries.valid)


def best_share(frame: RelatedProposals, ratio: float) -> RelatedProposals:
    return subset(frame, slice(0, max(1, round(ratio * frame.features.shape[1]))))


ORDERS = [
    (),
    (LONG,),
    (SHORT,),
    (LONG, LONG),
    (SHORT, SHORT),
    (LONG, SHORT),
    (SHORT, LONG, SHORT, SHORT),
    (LONG, SHORT, SHORT, SHORT, LONG),
]


@torch.no_grad()
@pytest.mark.parametrize("enhance_current", [True, False])
@pytest.mark.parametrize("stages", ORDERS, ids="-".join)
def test_any_order_of_stages_equals_the_loops(stages: tuple[str, ...], enhance_current: bool) -> None:
    config = replace(BASE, stages=stages, enhance_current=enhance_current, distill_ratio=0.4)  # type: ignore[arg-type]
    module = randomised(FeatureAggregation(config))
    assert isinstance(module, FeatureAggregation)
    current, long_term = proposals(3, clips=1), proposals(4, clips=1, seed=1, num_valid=3)
    short_frames = [proposals(5, clips=1, seed=2), proposals(5, clips=1, seed=3, num_valid=4)]
    related = module(current, joined(short_frames), long_term, num_short=2)
    torch.testing.assert_close(related, loop_aggregation(module, current, short_frames, long_term))


@torch.no_grad()
@pytest.mark.parametrize("distill_ratio", [0.01, 0.2, 1.0])
def test_distillation_keeps_the_best_of_each_frame(distill_ratio: float) -> None:
    config = replace(BASE, stages=(SHORT, SHORT), distill_ratio=distill_ratio)  # type: ignore[arg-type]
    module = randomised(FeatureAggregation(config))
    assert isinstance(module, FeatureAggregation)
    current = proposals(3, clips=1)
    short_frames = [proposals(5, clips=1, seed=seed) for seed in (2, 3, 4)]
    related = module(current, joined(short_frames), proposals(0, clips=1), num_short=3)
    expected = loop_aggregation(module, current, short_frames, proposals(0, clips=1))
    torch.testing.assert_close(related, expected)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["full", "no_location", "simple"])
@pytest.mark.parametrize("stages", ORDERS, ids="-".join)
def test_without_reference_frames_every_order_keeps_the_current_proposals(
    stages: tuple[str, ...], variant: str
) -> None:
    module = randomised(FeatureAggregation(replace(BASE, stages=stages, variant=variant)))  # type: ignore[arg-type]
    current, empty = proposals(3), proposals(0)
    assert torch.equal(module(current, empty, empty, num_short=0), current.features)


def test_the_papers_stages_have_one_gate_per_short_term_stage_and_mu_of_the_papers_shape() -> None:
    module = FeatureAggregation(RelationConfig())
    located = [stage.location is not None for stage in module.stages]
    assert located == [False, True, True, True, False]
    assert all(stage.group_bias.shape == (16, 64) for stage in module.stages)
    assert all(stage.location.linear.weight.shape == (16, 64) for stage in module.stages if stage.location)
    plain = FeatureAggregation(replace(RelationConfig(), location_embedding="direct", value_projection=False))
    assert plain.stages[1].location.linear.weight.shape == (16, 4)
    assert all(stage.value is None for stage in plain.stages)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("enhance_current", [True, False])
def test_every_parameter_of_every_stage_gets_a_gradient(
    switches: dict[str, Any], enhance_current: bool
) -> None:
    module = randomised(FeatureAggregation(replace(BASE, enhance_current=enhance_current, **switches)))
    short_term = joined([proposals(5, seed=2), proposals(5, seed=3)])
    related = module(proposals(3), short_term, proposals(4, seed=1), num_short=2)
    related.square().sum().backward()
    lacking = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert lacking == []
