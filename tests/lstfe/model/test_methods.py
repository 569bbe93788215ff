"""What each comparator keeps of the network and of the frames it looks at."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest

from lstfe.config import Config, InferenceConfig, ModelConfig, SamplingConfig
from lstfe.model.methods import METHODS, resolve_method

BASE = Config(
    sampling=SamplingConfig(num_short_term=2, num_candidates=4),
    inference=InferenceConfig(lookahead=6, num_alignment=2, num_relation=8, num_candidates=4),
)


def resolved(method: str, config: Config = BASE) -> Config:
    return resolve_method(replace(config, model=replace(config.model, method=method)))  # type: ignore[arg-type]


def test_every_method_that_the_configuration_accepts_is_there() -> None:
    assert set(METHODS) == set(get_args(get_type_hints(ModelConfig)["method"]))


def test_lstfe_is_the_configuration_as_it_stands() -> None:
    assert resolved("lstfe") == BASE


LONG, SHORT = "long_term", "short_term"


@pytest.mark.parametrize(
    ("method", "blocks", "stages", "frames"),
    [
        ("faster_rcnn", 0, (), (0, 0, 0, 0, 0, 0)),
        ("selsa", 0, (LONG, LONG), (0, 4, 0, 0, 4, 0)),
        ("rdn", 0, (SHORT, SHORT, SHORT), (2, 0, 0, 8, 0, 6)),
        ("stsn", 4, (), (2, 0, 2, 0, 0, 6)),
    ],
)
def test_comparators_keep_their_parts_and_sample_only_frames_that_these_use(
    method: str, blocks: int, stages: tuple[str, ...], frames: tuple[int, ...]
) -> None:
    config = resolved(method)
    assert config.model.alignment.num_blocks == blocks
    assert config.model.relation.stages == stages
    sampling, inference = config.sampling, config.inference
    assert frames == (
        sampling.num_short_term,
        sampling.num_candidates,
        inference.num_alignment,
        inference.num_relation,
        inference.num_candidates,
        inference.lookahead,
    )


def test_peculiarities_of_the_comparators() -> None:
    assert not resolved("selsa").model.selection.enabled
    assert not resolved("selsa").model.relation.group_bias
    assert not resolved("rdn").model.relation.group_bias
    assert resolved("rdn").model.relation.variant == "full"
    assert resolved("rdn").model.relation.distill_ratio == 0.2
    assert resolved("stsn").model.pixel_aggregation.weights == "cosine"


@pytest.mark.parametrize("method", METHODS)
def test_resolving_twice_changes_nothing(method: str) -> None:
    once = resolved(method)
    assert resolve_method(once) == once


@pytest.mark.parametrize(
    ("num_short_term", "num_candidates", "num_frames", "blocks", "stages"),
    [
        (0, 4, 2, 0, (LONG, LONG)),
        (2, 0, 2, 1, (SHORT, SHORT, SHORT)),
        (2, 4, 0, 1, (SHORT, SHORT, SHORT)),
        (0, 0, 2, 0, ()),
    ],
)
def test_parts_that_no_frame_of_a_training_clip_feeds_are_left_out_and_their_frames_too(
    num_short_term: int, num_candidates: int, num_frames: int, blocks: int, stages: tuple[str, ...]
) -> None:
    model = replace(BASE.model, selection=replace(BASE.model.selection, num_frames=num_frames))
    sampling = SamplingConfig(num_short_term=num_short_term, num_candidates=num_candidates)
    config = resolved("lstfe", replace(BASE, model=model, sampling=sampling))
    assert config.model.alignment.num_blocks == blocks
    assert config.model.relation.stages == stages
    assert (config.sampling.num_short_term > 0) == (config.inference.num_relation > 0) == (SHORT in stages)
    assert (config.sampling.num_candidates > 0) == (config.inference.num_candidates > 0) == (LONG in stages)
    assert resolve_method(config) == config


def test_lstfe_without_alignment_and_short_term_stages_is_causal_and_looks_at_no_neighbour() -> None:
    model = replace(
        BASE.model,
        alignment=replace(BASE.model.alignment, num_blocks=0),
        relation=replace(BASE.model.relation, stages=(LONG,)),
    )
    config = resolved("lstfe", replace(BASE, model=model))
    assert (config.sampling.num_short_term, config.inference.lookahead) == (0, 0)
    assert config.inference.num_candidates == 4
